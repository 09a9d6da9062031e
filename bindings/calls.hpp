// How Python's threads come and go while requests run, and when the interpreter shuts down.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "fastdllm/engine.hpp"
#include "fastdllm/error.hpp"

namespace nb = nanobind;

namespace fastdllm::python {

// Requests under way in this process. A thread that comes back to Python while the interpreter
// shuts down is killed in the middle of C++, which ends the process; so shutting down ends the
// requests and waits for them first.
class Calls {
 public:
  static Calls& get() {
    static Calls calls;
    return calls;
  }

  void begin() {
    running_.fetch_add(1);
    if (!closing_.load()) return;
    running_.fetch_sub(1);
    throw Error(ErrorCode::bad_config, "the interpreter is shutting down");
  }
  void end() noexcept { running_.fetch_sub(1); }

  // Around what a Python thread does without the GIL.
  void enter() noexcept {
    running_.fetch_add(1);
    ++depth_;
  }
  void leave() noexcept {
    --depth_;
    running_.fetch_sub(1);
  }
  // Before the GIL is asked for again: a daemon thread that is late stays here while the process
  // ends.
  void stay_out_when_closing() noexcept {
    if (!closing_.load() || closer_ == std::this_thread::get_id()) return;
    running_.fetch_sub(depth_);
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  [[nodiscard]] bool closing() const noexcept { return closing_.load(); }

  void watch(const Request& request) {
    const std::lock_guard lock(mutex_);
    if (requests_.size() >= next_sweep_) {
      std::erase_if(requests_, [](const Request& r) { return r.done(); });
      next_sweep_ = 2 * requests_.size() + 64;
    }
    requests_.push_back(request);
  }

  static void close() {
    Calls& calls = get();
    calls.closer_ = std::this_thread::get_id();
    calls.closing_.store(true);
    if (calls.process_ != getpid()) return;  // forked: the requests run elsewhere
    const nb::gil_scoped_release release;
    {
      const std::lock_guard lock(calls.mutex_);
      for (const Request& request : calls.requests_) request.cancel();
    }
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (calls.running_.load() > 0 && std::chrono::steady_clock::now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  const pid_t process_ = getpid();
  inline static thread_local int depth_ = 0;
  std::thread::id closer_;
  std::atomic<bool> closing_{false};
  std::atomic<int> running_{0};
  std::mutex mutex_;
  std::vector<Request> requests_;
  std::size_t next_sweep_ = 64;
};

// Lets go of the GIL.
class Released {
 public:
  Released() : saved_((Calls::get().enter(), PyEval_SaveThread())) {}
  ~Released() {
    Calls::get().stay_out_when_closing();
    PyEval_RestoreThread(saved_);
    Calls::get().leave();
  }
  Released(const Released&) = delete;
  Released& operator=(const Released&) = delete;

 private:
  PyThreadState* saved_;
};

}  // namespace fastdllm::python
