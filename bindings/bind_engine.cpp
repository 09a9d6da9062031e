#include "fastdllm/engine.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <chrono>

#include "bindings.hpp"
#include "event.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace fastdllm::python {
namespace {

using Clock = std::chrono::steady_clock;

void throw_on_signal() {
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

// Runs between passes, GIL released. Without a Python callback the GIL is taken now and then only,
// for Ctrl-C: a busy Python thread would make every pass wait for it.
class Watcher {
 public:
  explicit Watcher(nb::handle on_commit) : on_commit_(on_commit) {}

  bool operator()(const CommitEvent& event) {
    constexpr std::chrono::milliseconds interval{20};
    if (on_commit_.is_none()) {
      if (Clock::now() - last_look_ < interval) return true;
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

void init_engine(Engine* self, const std::string& package, int threads,
                 const std::string& onnxruntime_library) {
  const nb::gil_scoped_release release;
  new (self) Engine(package, {.threads = threads, .onnxruntime_library = onnxruntime_library});
}

GenerationResult generate(Engine& self, nb::handle prompt_ids, const GenerationConfig& config,
                          nb::handle on_commit) {
  const std::vector<std::int32_t> ids = ids_from(prompt_ids, "prompt_ids");
  if (!on_commit.is_none() && PyCallable_Check(on_commit.ptr()) == 0) {
    throw nb::type_error("on_commit is not callable");
  }
  const GenerationConfig own_config = config;  // another thread may write to it meanwhile
  Watcher watcher(on_commit);
  const nb::gil_scoped_release release;
  return self.generate(ids, own_config, std::ref(watcher));
}

nb::ndarray<nb::numpy, float, nb::ndim<2>> logits(Engine& self, nb::handle ids,
                                                  nb::handle positions) {
  const std::vector<std::int32_t> input = ids_from(ids, "ids");
  const std::vector<std::int32_t> rows = ids_from(positions, "positions");
  auto values = std::make_unique<std::vector<float>>();
  {
    const nb::gil_scoped_release release;
    *values = self.logits(input, rows);
  }
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
  nb::class_<Engine>(m, "Engine",
                     "Token ids in, token ids out: a package, loaded once.\n\n"
                     "Calls from several threads are served one after another.\n"
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
      .def("logits", &logits, "ids"_a, "positions"_a,
           nb::sig("def logits(self, ids: collections.abc.Iterable[int] | "
                   "numpy.typing.NDArray[numpy.int32], positions: collections.abc.Iterable[int] | "
                   "numpy.typing.NDArray[numpy.int32]) -> numpy.typing.NDArray[numpy.float32]"),
           "One plain pass without cache: float32 logits [len(positions), vocab_size].")
      .def_prop_ro("package", &Engine::package, nb::rv_policy::reference_internal)
      .def_prop_ro("backend", &Engine::backend, "Name, version and device, for people.");
}

}  // namespace fastdllm::python
