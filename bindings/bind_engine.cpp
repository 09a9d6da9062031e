#include "fastdllm/engine.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "bindings.hpp"
#include "event.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace fastdllm::python {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds look_interval{20};

void throw_on_signal() {
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

// Calls under way in this process. A thread that comes back to Python while the interpreter shuts
// down is killed in the middle of C++, which ends the process; so shutting down ends the calls and
// waits for them first.
struct Calls {
  std::atomic<bool> closing{false};
  std::atomic<int> running{0};

  static Calls& get() {
    static Calls calls;
    return calls;
  }

  static void close() {
    get().closing.store(true);
    const nb::gil_scoped_release release;
    const auto give_up = Clock::now() + std::chrono::seconds(10);
    while (get().running.load() > 0 && Clock::now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
};

// Lives from before the GIL is released until after it is taken again.
class Call {
 public:
  Call() {
    Calls::get().running.fetch_add(1);
    if (Calls::get().closing.load()) {
      Calls::get().running.fetch_sub(1);
      throw Error(ErrorCode::bad_config, "the interpreter is shutting down");
    }
  }
  ~Call() { Calls::get().running.fetch_sub(1); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
};

// An engine whose waiting callers can be interrupted by Ctrl-C.
class PyEngine : public Engine {
 public:
  using Engine::Engine;

  // Runs `work` with the GIL released, one caller at a time; a waiting one looks for signals. A
  // call from the running one's own callback is passed on: Engine refuses it.
  template <typename Work>
  auto serve(const Work& work) {
    const Call call;
    const nb::gil_scoped_release release;
    if (owner_.load() == std::this_thread::get_id()) return work();
    std::unique_lock lock(mutex_, std::defer_lock);
    while (!lock.try_lock_for(look_interval)) {
      const nb::gil_scoped_acquire gil;
      throw_on_signal();
    }
    struct Reset {
      std::atomic<std::thread::id>& owner;
      ~Reset() { owner.store({}); }
    } const reset{owner_};
    owner_.store(std::this_thread::get_id());
    return work();
  }

 private:
  std::timed_mutex mutex_;
  std::atomic<std::thread::id> owner_{};
};

// Runs between passes, GIL released. Without a Python callback the GIL is taken now and then only,
// for Ctrl-C: a busy Python thread would make every pass wait for it.
class Watcher {
 public:
  explicit Watcher(nb::handle on_commit) : on_commit_(on_commit) {}

  bool operator()(const CommitEvent& event) {
    if (Calls::get().closing.load()) return false;
    if (on_commit_.is_none()) {
      if (Clock::now() - last_look_ < look_interval) return true;
      const nb::gil_scoped_acquire gil;
      throw_on_signal();
      last_look_ = Clock::now();
      return true;
    }
    const nb::gil_scoped_acquire gil;
    throw_on_signal();
    const nb::object answer = on_commit_(OwnedEvent(event));
    return answer.is_none() || nb::cast<bool>(nb::bool_(answer));
  }

 private:
  nb::handle on_commit_;
  Clock::time_point last_look_ = Clock::now();
};

void init_engine(PyEngine* self, const std::string& package, int threads,
                 const std::string& onnxruntime_library) {
  const nb::gil_scoped_release release;
  new (self) PyEngine(package, {.threads = threads, .onnxruntime_library = onnxruntime_library});
}

GenerationResult generate(PyEngine& self, nb::handle prompt_ids, const GenerationConfig& config,
                          nb::handle on_commit) {
  const std::vector<std::int32_t> ids = ids_from(prompt_ids, "prompt_ids");
  if (!on_commit.is_none() && PyCallable_Check(on_commit.ptr()) == 0) {
    throw nb::type_error("on_commit is not callable");
  }
  const GenerationConfig own_config = config;  // another thread may write to it meanwhile
  Watcher watcher(on_commit);
  return self.serve([&] { return self.generate(ids, own_config, std::ref(watcher)); });
}

nb::ndarray<nb::numpy, float, nb::ndim<2>> logits(PyEngine& self, nb::handle ids,
                                                  nb::handle positions,
                                                  std::optional<std::int64_t> block_length) {
  const std::vector<std::int32_t> input = ids_from(ids, "ids");
  const std::vector<std::int32_t> rows = ids_from(positions, "positions");
  auto values = std::make_unique<std::vector<float>>(
      self.serve([&] { return self.logits(input, rows, block_length); }));
  const auto vocab_size = static_cast<std::size_t>(self.package().vocab_size);
  float* data = values->data();
  const nb::capsule owner(values.get(),
                          [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  static_cast<void>(values.release());
  return {data, {rows.size(), vocab_size}, owner};
}

std::vector<std::int32_t> copy_array(
    const nb::ndarray<const std::int32_t, nb::ndim<1>, nb::device::cpu>& array) {
  std::vector<std::int32_t> ids(array.size());
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = array.data()[static_cast<std::int64_t>(i) * array.stride(0)];
  return ids;
}

}  // namespace

std::vector<std::int32_t> ids_from(nb::handle ids, std::string_view what) {
  using Array = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::device::cpu>;
  Array array;
  if (nb::try_cast<Array>(nb::borrow(ids), array, false)) return copy_array(array);

  std::vector<std::int32_t> copied;
  for (const nb::handle item : nb::iter(ids)) {
    const nb::object number = nb::steal(PyNumber_Index(item.ptr()));
    if (!number.is_valid()) {
      PyErr_Clear();
      throw nb::type_error(
          (std::string(what) + ": item " + std::to_string(copied.size()) + " is no integer")
              .c_str());
    }
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
    if (overflow != 0 || value != static_cast<std::int32_t>(value)) {
      throw Error(ErrorCode::bad_config,
                  std::string(what) + ": id " + nb::cast<std::string>(nb::str(number)) +
                      " at index " + std::to_string(copied.size()) + " is outside the vocabulary");
    }
    copied.push_back(static_cast<std::int32_t>(value));
  }
  return copied;
}

void bind_engine(nb::module_& m) {
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&Calls::close));
  nb::class_<PyEngine>(
      m, "Engine",
      "Token ids in, token ids out: a package, loaded once.\n\n"
      "Calls from several threads are served one after another; a call from the engine's own\n"
      "callback is an error, and a callback that waits for such a call in another thread hangs.\n"
      "Errors: PackageError, BackendError.")
      .def("__init__", &init_engine, "package"_a, nb::kw_only(), "threads"_a = 0,
           "onnxruntime_library"_a = "")
      .def("generate", &generate, "prompt_ids"_a, "config"_a = GenerationConfig(),
           "on_commit"_a = nb::none(),
           nb::sig("def generate(self, prompt_ids: collections.abc.Iterable[int] | "
                   "numpy.typing.NDArray[numpy.int32], config: GenerationConfig = ..., "
                   "on_commit: collections.abc.Callable[[CommitEvent], bool | None] | None = None)"
                   " -> GenerationResult"),
           "Decodes config.max_new_tokens positions after the prompt.\n\n"
           "prompt_ids: [P] ids in [0, vocab_size), no mask token, P may be 0. on_commit: called\n"
           "after every pass; False aborts. The GIL is released between calls of it.\n"
           "Errors: ConfigError before any pass; NumericError, BackendError during one.")
      .def("logits", &logits, "ids"_a, "positions"_a, "block_length"_a = nb::none(),
           nb::sig("def logits(self, ids: collections.abc.Iterable[int] | "
                   "numpy.typing.NDArray[numpy.int32], positions: collections.abc.Iterable[int] | "
                   "numpy.typing.NDArray[numpy.int32], block_length: int | None = None) -> "
                   "numpy.typing.NDArray[numpy.float32]"),
           "One plain pass without cache: float32 logits [len(positions), vocab_size], before any\n"
           "logit shift. block_length: of block-causal attention, None = the package's.")
      .def_prop_ro(
          "package", [](const PyEngine& e) -> const PackageInfo& { return e.package(); },
          nb::rv_policy::reference_internal)
      .def_prop_ro(
          "backend", [](const PyEngine& e) { return e.backend(); },
          "Name, version and device, for people.");
}

}  // namespace fastdllm::python
