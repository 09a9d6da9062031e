#include "threads.hpp"

#include <pthread.h>

#include <chrono>

#include "fastdllm/error.hpp"

namespace fastdllm::python {
namespace {

std::atomic<Calls*> of_this_process{nullptr};

// The threads that the parent counts are not here. Its Calls stay for what began with them.
void start_afresh() {
  of_this_process.store(new Calls);
}

}  // namespace

Calls& Calls::get() noexcept {
  static const int once = [] {
    start_afresh();
    return pthread_atfork(nullptr, nullptr, &start_afresh);
  }();
  static_cast<void>(once);
  return *of_this_process.load();
}

void Calls::begin() {
  running_.fetch_add(1);
  if (!closing_.load()) return;
  running_.fetch_sub(1);
  stay_out_with_gil();
  throw Error(ErrorCode::bad_config, "the interpreter is shutting down");
}

bool Calls::try_enter() noexcept {
  enter();
  if (!closing_.load()) return true;
  leave();
  return false;
}

void Calls::enter() noexcept {
  running_.fetch_add(1);
  ++depth_;
}

void Calls::leave() noexcept {
  --depth_;
  running_.fetch_sub(1);
}

void Calls::stay_out_when_closing() noexcept {
  if (!stays_out()) return;
  running_.fetch_sub(depth_);
  stay_out();
}

void Calls::stay_out_with_gil() noexcept {
  if (!stays_out()) return;
  running_.fetch_sub(depth_);
  PyEval_SaveThread();
  stay_out();
}

bool Calls::stays_out() const noexcept {
  if (!closing_.load() || closer_.load() == std::this_thread::get_id()) return false;
  return !in_callback || gave_up_.load();
}

void Calls::watch(const Request& request) {
  const std::lock_guard lock(mutex_);
  if (requests_.size() >= next_sweep_) {
    std::erase_if(requests_, [](const Request& r) { return r.done(); });
    next_sweep_ = 2 * requests_.size() + 64;
  }
  requests_.push_back(request);
}

void Calls::close() {
  Calls& calls = get();
  calls.closer_.store(std::this_thread::get_id());
  calls.closing_.store(true);
  const nb::gil_scoped_release release;
  {
    const std::lock_guard lock(calls.mutex_);
    for (const Request& request : calls.requests_) request.cancel();
  }
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (calls.running_.load() > 0) {
    if (std::chrono::steady_clock::now() >= give_up) {
      calls.gave_up_.store(true);
      return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void stay_out() noexcept {
  while (true) std::this_thread::sleep_for(std::chrono::hours(1));
}

Finished::Finished() {
  calls_.enter();
  calls_.stay_out_with_gil();
}

Released::Released() {
  calls_.enter();
  saved_ = PyEval_SaveThread();
  calls_.stay_out_when_closing();
}

Released::~Released() {
  calls_.stay_out_when_closing();
  kept([&] { PyEval_RestoreThread(saved_); });
  calls_.leave();
}

PythonThread::PythonThread() : state_(PyGILState_Ensure()), saved_(PyEval_SaveThread()) {}

PythonThread::~PythonThread() {
  Calls& calls = Calls::get();
  if (!calls.try_enter()) return;  // Python may be gone
  kept([&] {
    PyEval_RestoreThread(saved_);
    PyGILState_Release(state_);
  });
  calls.leave();
}

void Shared::reset() noexcept {
  if (object_ == nullptr) return;
  with_gil([&] { Py_DECREF(std::exchange(object_, nullptr)); });
}

void Shared::set(nb::object object) {
  const nb::object old = nb::steal(std::exchange(object_, object.release().ptr()));
}

bool gets_signals() {
  try {
    return kept([] {
      const nb::object main = nb::module_::import_("threading").attr("main_thread")();
      return nb::cast<unsigned long>(main.attr("ident")) == PyThread_get_thread_ident();
    });
  } catch (const std::exception&) {  // the interpreter shuts down
    return true;
  }
}

}  // namespace fastdllm::python
