// A submitted request, and the thread that serves it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "fastdllm/engine.hpp"
#include "loop/cache_pool.hpp"
#include "loop/turn.hpp"
#include "loop/unmask_loop.hpp"

namespace fastdllm {

/// The thread that runs the passes and its process; {} and 0 before it starts. Outlives the
/// scheduler with the handles.
struct ServingThread {
  std::atomic<std::thread::id> id{};
  std::atomic<pid_t> process{0};

  /// Whether this process was forked from one where the thread had started: here there is none.
  [[nodiscard]] bool is_elsewhere() const noexcept;
  [[nodiscard]] bool is_current() const noexcept;
  /// Errors: Error{bad_config} on the thread, which must not wait for itself, and in a forked
  /// process, where nobody serves.
  void require_waiting_makes_sense() const;
};

/// Shared by a request's handles and the scheduler.
struct Job {
  explicit Job(std::shared_ptr<const ServingThread> serving) : thread(std::move(serving)) {}

  std::shared_ptr<const ServingThread> thread;

  // Of the scheduler's thread alone, once it is submitted.
  std::unique_ptr<UnmaskLoop> loop;
  std::function<void()> on_done;
  Lease lease;
  Turn turn;
  Feed* feed = nullptr;        // the pass that it wants
  std::exception_ptr problem;  // that ends it

  std::atomic<bool> cancelled{false};
  std::promise<GenerationResult> promise;
  std::shared_future<GenerationResult> answer{promise.get_future()};
  std::promise<void> callbacks_over;  // on_done has returned, and no callback is kept
  std::shared_future<void> settled{callbacks_over.get_future()};

  [[nodiscard]] bool has_ended() const noexcept { return problem || loop->has_ended(); }
};

}  // namespace fastdllm
