// Threads, the GIL and Ctrl-C: how Python's and the engines' threads work together while requests
// run, and when the interpreter shuts down.
//
// A thread that asks for the GIL while the interpreter shuts down never gets it: Python ends the
// thread by unwinding its stack, which ends the process where a C++ function lets nothing through.
// So shutting down first ends the requests and waits for them, and a thread that is late all the
// same stays where it is.
#pragma once

#include <cxxabi.h>
#include <nanobind/nanobind.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "fastdllm/engine.hpp"

namespace nb = nanobind;

namespace fastdllm::python {

/// What this process has under way that will ask for the GIL. A forked process has its own.
class Calls {
 public:
  [[nodiscard]] static Calls& get() noexcept;

  /// Around the life of a request's callbacks, with the GIL. Errors: Error{bad_config} when
  /// shutting down; a daemon thread that is late stays here.
  void begin();
  void end() noexcept { running_.fetch_sub(1); }
  /// Around what a thread does that will ask for the GIL. False, and not to be left: too late.
  [[nodiscard]] bool try_enter() noexcept;
  void enter() noexcept;
  void leave() noexcept;
  /// Before the GIL is asked for again: a daemon thread that is late stays here while the process
  /// ends. A callback goes on as long as it is waited for.
  void stay_out_when_closing() noexcept;
  /// The same for a thread that has the GIL, and lets go of it.
  void stay_out_with_gil() noexcept;
  [[nodiscard]] bool closing() const noexcept { return closing_.load(); }
  /// Whether a callback took too long: its engine cannot be waited for.
  [[nodiscard]] bool gave_up() const noexcept { return gave_up_.load(); }

  /// Remembers a request, to end it when shutting down.
  void watch(const Request& request);
  /// Ends the requests and waits for what runs. With the GIL, before the interpreter shuts down.
  static void close();

  inline static thread_local bool in_callback = false;

 private:
  [[nodiscard]] bool stays_out() const noexcept;

  inline static thread_local int depth_ = 0;
  std::atomic<std::thread::id> closer_{};
  std::atomic<bool> closing_{false}, gave_up_{false};
  std::atomic<int> running_{0};
  std::mutex mutex_;
  std::vector<Request> requests_;
  std::size_t next_sweep_ = 64;
};

/// Never returns.
[[noreturn]] void stay_out() noexcept;

/// Calls `call`, which runs Python code; a thread that Python ends there stays instead.
template <typename Call>
auto kept(const Call& call) {
  try {
    return call();
  } catch (abi::__forced_unwind&) {
    stay_out();
  }
}

/// Calls `call` with the GIL, on any thread that is among the Calls. nanobind's own guard would end
/// the process where the GIL is not to be had.
template <typename Call>
void with_gil(const Call& call) {
  const PyGILState_STATE state = kept([] { return PyGILState_Ensure(); });
  try {
    kept(call);  // where Python ends the thread there is no GIL to release
  } catch (...) {
    PyGILState_Release(state);
    throw;
  }
  PyGILState_Release(state);
}

/// Around what calls Python code where nothing may unwind, with the GIL: shutting down waits for
/// it.
class Finished {
 public:
  Finished();
  ~Finished() { calls_.leave(); }
  Finished(const Finished&) = delete;
  Finished& operator=(const Finished&) = delete;

 private:
  Calls& calls_ = Calls::get();
};

/// A value that becomes a Python object by calling Python code, as arrays do.
template <typename T>
struct Made {
  T value;
};

/// Releases the GIL.
class Released {
 public:
  Released();
  ~Released();
  Released(const Released&) = delete;
  Released& operator=(const Released&) = delete;

 private:
  Calls& calls_ = Calls::get();
  PyThreadState* saved_;
};

/// Keeps a thread known to Python as long as it lives: making its state anew for every callback
/// would take many times as long as the callback.
class PythonThread {
 public:
  static void introduce() { static thread_local const PythonThread thread; }

  PythonThread();
  ~PythonThread();
  PythonThread(const PythonThread&) = delete;
  PythonThread& operator=(const PythonThread&) = delete;

 private:
  PyGILState_STATE state_;
  PyThreadState* saved_;
};

/// A Python object, or none, that any thread may let go of. An empty one has no need of the GIL.
class Shared {
 public:
  Shared() = default;
  /// None is no object.
  explicit Shared(nb::handle object)
      : object_(object.is_none() ? nullptr : object.inc_ref().ptr()) {}
  ~Shared() { reset(); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }
  [[nodiscard]] nb::handle get() const noexcept { return object_; }
  void reset() noexcept;
  void set(nb::object object);  ///< with the GIL

 private:
  PyObject* object_ = nullptr;
};

/// Whether Python's signal handlers run on this thread. With the GIL.
[[nodiscard]] bool gets_signals();

}  // namespace fastdllm::python

template <typename T>
struct nanobind::detail::type_caster<fastdllm::python::Made<T>> {
  static constexpr auto Name = make_caster<T>::Name;
  static handle from_cpp(const fastdllm::python::Made<T>& made, rv_policy policy,
                         cleanup_list* cleanup) noexcept {
    const fastdllm::python::Finished finished;
    return make_caster<T>::from_cpp(made.value, policy, cleanup);
  }
};
