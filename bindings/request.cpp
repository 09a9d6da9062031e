#include "request.hpp"

#include <algorithm>
#include <string>

#include "bindings.hpp"
#include "event.hpp"
#include "fastdllm/error.hpp"
#include "option_values.hpp"

using namespace nb::literals;

namespace fastdllm::python {
namespace {

// How often a thread that waits looks for Ctrl-C.
constexpr std::chrono::milliseconds look_interval{20};

struct CallbackRaised {};

// Marks this thread while it is in a callback.
class InCallback {
 public:
  InCallback() : before_(std::exchange(Calls::in_callback, true)) {}
  ~InCallback() { Calls::in_callback = before_; }
  InCallback(const InCallback&) = delete;
  InCallback& operator=(const InCallback&) = delete;

 private:
  bool before_;
};

// Errors: what a signal's handler raises, after the request of a `blocking` call has ended.
void run_signal_handlers(const Request& request, bool blocking) {
  if (PyErr_CheckSignals() == 0) return;
  nb::python_error signal;
  if (blocking) {
    const Released without;
    request.cancel();
    while (!request.wait_for(std::chrono::hours(1))) {
    }
  }
  throw signal;
}

GenerationResult result_of(const PyRequest& self, nb::handle seconds) {
  using Clock = PyRequest::Clock;
  std::optional<Clock::time_point> until;
  constexpr double longest = 1e9;  // seconds; no overflow
  std::optional<double> timeout;
  if (!seconds.is_none() && !read_number(timeout.emplace(), seconds)) {
    throw nb::type_error(("timeout is " + repr_of(seconds) + "; expected float | None").c_str());
  }
  if (timeout && !(*timeout >= 0.0)) {
    throw Error(ErrorCode::bad_config,
                "timeout is " + std::to_string(*timeout) + "; expected seconds >= 0, or None");
  }
  if (timeout) {
    until = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                               std::chrono::duration<double>(std::min(*timeout, longest)));
  }
  if (!self.request.done()) self.request.require_other_thread();
  if (!self.wait(until, false)) {
    PyErr_SetString(PyExc_TimeoutError, "the request has not ended yet");
    throw nb::python_error();
  }
  return self.result();
}

// An exception's traceback may lead back to the request that holds it: the collector has to see.
int traverse_request(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (nb::inst_ready(self)) Py_VISIT(nb::inst_ptr<PyRequest>(self)->raised->get().ptr());
  return 0;
}

int clear_request(PyObject* self) {
  nb::inst_ptr<PyRequest>(self)->raised->reset();
  return 0;
}

PyType_Slot request_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_request)},
                               {Py_tp_clear, reinterpret_cast<void*>(clear_request)},
                               {0, nullptr}};

}  // namespace

Callbacks::Callbacks(nb::handle on_commit, nb::handle on_done, std::shared_ptr<Shared> raised)
    : on_commit_(on_commit), on_done_(on_done), raised_(std::move(raised)) {
  calls_.begin();
}

// Python may shut down as soon as this has ended: nothing is left for the members' destructors.
Callbacks::~Callbacks() {
  if (on_commit_ || on_done_) {
    with_gil([&] {
      on_commit_.reset();
      on_done_.reset();
      raised_.reset();
    });
  }
  raised_.reset();  // empty, where there was no on_commit
  calls_.end();
}

bool Callbacks::commit(const CommitEvent& event) {
  if (calls_.closing()) return false;
  if (!on_commit_) return true;  // without a look at the GIL
  PythonThread::introduce();
  const InCallback here;
  bool goes_on = true;
  with_gil([&] {
    try {
      const nb::object answer = on_commit_.get()(OwnedEvent(event));
      goes_on = answer.is_none() || nb::cast<bool>(nb::bool_(answer));
    } catch (nb::python_error& error) {
      raised_->set(nb::borrow(error.value()));
      throw CallbackRaised();
    }
  });
  return goes_on;
}

void Callbacks::done() {
  if (calls_.closing() || !on_done_) return;
  const InCallback here;
  with_gil([&] {
    try {
      on_done_.get()();
    } catch (nb::python_error& error) {
      error.restore();
      PyErr_WriteUnraisable(on_done_.get().ptr());
    }
  });
}

bool PyRequest::wait(std::optional<Clock::time_point> until, bool blocking) const {
  const bool interruptible = gets_signals();
  const Released release;
  while (true) {
    std::chrono::nanoseconds time = std::chrono::hours(1);
    if (interruptible) time = look_interval;
    if (until && !request.done()) {
      time = std::min(time, std::max(std::chrono::nanoseconds(*until - Clock::now()),
                                     std::chrono::nanoseconds(0)));
    }
    if (request.wait_for(time)) return true;
    if (until && Clock::now() >= *until && !request.done()) return false;
    Calls::get().stay_out_when_closing();
    if (interruptible) with_gil([&] { run_signal_handlers(request, blocking); });
  }
}

GenerationResult PyRequest::result() const {
  try {
    return request.result();
  } catch (const CallbackRaised&) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(raised->get().ptr())), raised->get().ptr());
    throw nb::python_error();
  }
}

void bind_request(nb::module_& m) {
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&Calls::close));
  nb::class_<PyRequest>(m, "Request", nb::type_slots(request_slots),
                        "A request under way, from Engine.submit.")
      .def(
          "result", &result_of, "timeout"_a = nb::none(),
          nb::sig("def result(self, timeout: float | None = None) -> GenerationResult"),
          "Waits for the end, `timeout` seconds at most, and until on_done has returned; in\n"
          "on_done it is there. Errors: TimeoutError; NumericError, BackendError of the request's\n"
          "passes; what on_commit raised; ConfigError in another callback.")
      .def(
          "cancel", [](const PyRequest& self) { self.request.cancel(); },
          "Ends the request before its next pass, finish_reason 'abort'; nothing if it has ended.")
      .def_prop_ro(
          "done", [](const PyRequest& self) { return self.request.done(); },
          "Whether the request has ended; on_done may still run.");
}

}  // namespace fastdllm::python
