#include "fastdllm/engine.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "option_values.hpp"
#include "request.hpp"

using namespace nb::literals;

namespace fastdllm::python {
namespace {

// Lets the engine's thread have the GIL while it waits for it to end.
struct PyEngine {
  std::unique_ptr<Engine> engine;

  PyEngine(const std::string& package, const SessionOptions& options, const EngineLimits& limits)
      : engine(std::make_unique<Engine>(package, options, limits)) {}
  ~PyEngine() {
    if (Calls::get().gave_up()) {  // its thread may never end
      static_cast<void>(engine.release());
      return;
    }
    const Released release;
    engine.reset();
  }
  PyEngine(const PyEngine&) = delete;
  PyEngine& operator=(const PyEngine&) = delete;
};

void init_engine(PyEngine* self, nb::handle package_dir, const nb::kwargs& options) {
  std::string folder;
  if (package_dir.is_none() || !read_path(folder, package_dir)) {
    throw nb::type_error(
        ("package_dir is " + repr_of(package_dir) + "; expected str | os.PathLike[str]").c_str());
  }
  const EngineKeywords keywords = engine_keywords(options);
  const Released release;
  new (self) PyEngine(folder, keywords.session, keywords.limits);
}

void require_callable(nb::handle callback, const char* name) {
  if (!callback.is_none() && PyCallable_Check(callback.ptr()) == 0) {
    throw nb::type_error((std::string(name) + " is not callable").c_str());
  }
}

template <bool infills>
PyRequest submit(PyEngine& self, nb::handle ids, const GenerationConfig& config,
                 nb::handle on_commit, nb::handle on_done) {
  const std::vector<std::int32_t> own_ids = ids_from(ids, infills ? "canvas_ids" : "prompt_ids");
  require_callable(on_commit, "on_commit");
  require_callable(on_done, "on_done");
  const GenerationConfig own_config = config;  // another thread may write to it meanwhile
  PyRequest request;
  auto callbacks = std::make_shared<Callbacks>(on_commit, on_done, request.raised);
  const auto commit = [callbacks](const CommitEvent& event) { return callbacks->commit(event); };
  const auto done = [callbacks] { callbacks->done(); };
  callbacks.reset();
  const Released release;
  request.request = infills ? self.engine->submit_infill(own_ids, own_config, commit, done)
                            : self.engine->submit(own_ids, own_config, commit, done);
  Calls::get().watch(request.request);
  return request;
}

template <bool infills>
GenerationResult generate(PyEngine& self, nb::handle ids, const GenerationConfig& config,
                          nb::handle on_commit) {
  self.engine->require_other_thread();
  const PyRequest request = submit<infills>(self, ids, config, on_commit, nb::none());
  static_cast<void>(request.wait({}, true));
  return request.result();
}

using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

Made<Logits> logits(PyEngine& self, nb::handle ids, nb::handle positions, nb::handle blocks) {
  const std::vector<std::int32_t> input = ids_from(ids, "ids");
  const std::vector<std::int32_t> rows = ids_from(positions, "positions");
  std::optional<std::int64_t> block_length;
  if (!blocks.is_none() && !read_integer(block_length.emplace(), blocks)) {
    throw nb::type_error(("block_length is " + repr_of(blocks) + "; expected int | None").c_str());
  }
  auto values = std::make_unique<std::vector<float>>();
  {
    const Released release;
    *values = self.engine->logits(input, rows, block_length);
  }
  const auto vocab_size = static_cast<std::size_t>(self.engine->package().vocab_size);
  float* data = values->data();
  const nb::capsule owner(values.get(),
                          [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  static_cast<void>(values.release());
  return {Logits(data, {rows.size(), vocab_size}, owner)};
}

std::vector<std::int32_t> copy_array(
    const nb::ndarray<const std::int32_t, nb::ndim<1>, nb::device::cpu>& array) {
  std::vector<std::int32_t> ids(array.size());
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = array.data()[static_cast<std::int64_t>(i) * array.stride(0)];
  return ids;
}

std::vector<std::int32_t> copied_ids(nb::handle ids, std::string_view what) {
  using Array = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::device::cpu>;
  Array array;
  const auto is_array = [&] {  // asks what is given for its __dlpack__, which nothing may unwind
    const Finished finished;
    return nb::try_cast<Array>(nb::borrow(ids), array, false);
  };
  if (is_array()) return copy_array(array);

  // A thread that Python ends in an iterator's code must not unwind through here.
  const nb::object items = nb::steal(kept([&] { return PySequence_List(ids.ptr()); }));
  if (!items.is_valid()) throw nb::python_error();
  std::vector<std::int32_t> copied;
  for (Py_ssize_t i = 0; i < PyList_Size(items.ptr()); ++i) {
    const nb::object item = nb::borrow(PyList_GetItem(items.ptr(), i));
    const nb::object number = integer_from(item);
    if (!number.is_valid()) {
      throw nb::type_error(
          (std::string(what) + ": item " + std::to_string(copied.size()) + " is no integer")
              .c_str());
    }
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
    if (overflow != 0 || value != static_cast<std::int32_t>(value)) {
      throw Error(ErrorCode::bad_config, std::string(what) + ": id " + repr_of(number) +
                                             " at index " + std::to_string(copied.size()) +
                                             " is outside the vocabulary");
    }
    copied.push_back(static_cast<std::int32_t>(value));
  }
  return copied;
}

// waits: the function waits for the result, and has no on_done.
std::string request_signature(const char* name, const char* ids, bool waits) {
  constexpr const char* ids_type =
      "collections.abc.Iterable[int] | numpy.typing.NDArray[numpy.int32], "
      "config: GenerationConfig = ..., "
      "on_commit: collections.abc.Callable[[CommitEvent], bool | None] | None = None";
  return std::string("def ") + name + "(self, " + ids + ": " + ids_type +
         (waits ? ") -> GenerationResult"
                : ", on_done: collections.abc.Callable[[], object] | None = None) -> Request");
}

constexpr const char* logits_signature =
    "def logits(self, ids: collections.abc.Iterable[int] | "
    "numpy.typing.NDArray[numpy.int32], positions: collections.abc.Iterable[int] | "
    "numpy.typing.NDArray[numpy.int32], block_length: int | None = None) -> "
    "numpy.typing.NDArray[numpy.float32]";

void bind_engine_load(nb::module_& m) {
  nb::class_<EngineLoad>(m, "EngineLoad", "How busy an engine is at one moment, and its limits.")
      .def_ro("running", &EngineLoad::running, "Requests that are decoded side by side.")
      .def_ro("waiting", &EngineLoad::waiting, "Requests that wait for a place.")
      .def_ro(
          "cache_bytes_used", &EngineLoad::cache_bytes_used,
          "Bytes reserved for running requests: K/V, and scores where the graph holds them all.")
      .def_prop_ro("max_batch", [](const EngineLoad& load) { return load.limits.max_batch; })
      .def_prop_ro("max_waiting", [](const EngineLoad& load) { return load.limits.max_waiting; })
      .def_prop_ro("cache_bytes", [](const EngineLoad& load) { return load.limits.cache_bytes; });
}

}  // namespace

std::vector<std::int32_t> ids_from(nb::handle ids, std::string_view what) {
  try {
    return copied_ids(ids, what);
  } catch (const std::bad_alloc&) {
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_MemoryError)) throw;
  }
  throw Error(ErrorCode::bad_config, concat(what, ": there is no memory for a copy of the ids"));
}

void bind_engine(nb::module_& m) {
  bind_engine_load(m);
  m.def(
      "loaded_onnxruntime", &loaded_onnxruntime,
      "Path of the ONNX Runtime library that this process has opened; '' before the first engine.");
  m.def("built_backends", &built_backends,
        "The backends in this build, by the names that Engine's backend option takes.");
  nb::class_<PyEngine>(
      m, "Engine",
      "A loaded package that decodes requests of token ids. Use fastdllm.Engine.\n\n"
      "The requests of all threads are decoded side by side, pass by pass, on the engine's own\n"
      "thread. Callbacks run on it too: all requests wait meanwhile, and a callback must not wait\n"
      "for a request. Errors: PackageError, BackendError; ConfigError for limits out of range.")
      .def("__init__", &init_engine, nb::sig(engine_signature().c_str()))
      .def("generate", &generate<false>, "prompt_ids"_a, "config"_a = GenerationConfig(),
           "on_commit"_a = nb::none(),
           nb::sig(request_signature("generate", "prompt_ids", true).c_str()),
           "Decodes config.max_new_tokens positions after the prompt and waits for the result.\n\n"
           "prompt_ids: int32 of shape [P], ids in [0, vocab_size) without the mask token; P may "
           "be\n"
           "0. on_commit: called after every pass, on the engine's thread; returning False ends "
           "the\n"
           "request unless this pass has ended it; what it raises, generate raises.\n"
           "Errors: ConfigError and OverloadedError before the first pass; NumericError and\n"
           "BackendError during a pass.")
      .def("submit", &submit<false>, "prompt_ids"_a, "config"_a = GenerationConfig(),
           "on_commit"_a = nb::none(), "on_done"_a = nb::none(), nb::keep_alive<0, 1>(),
           nb::sig(request_signature("submit", "prompt_ids", false).c_str()),
           "Like generate, but returns at once. on_done: called on the engine's thread when the\n"
           "request has ended, before result() returns on another thread.")
      .def("infill", &generate<true>, "canvas_ids"_a, "config"_a = GenerationConfig(),
           "on_commit"_a = nb::none(),
           nb::sig(request_signature("infill", "canvas_ids", true).c_str()),
           "Replaces the mask tokens in canvas_ids and keeps all other ids.\n\n"
           "canvas_ids: int32 of shape [L] with at least one mask token. The result is the whole\n"
           "canvas; positions in events are indices into it. Stop tokens do not end it and\n"
           "max_new_tokens is ignored.")
      .def("submit_infill", &submit<true>, "canvas_ids"_a, "config"_a = GenerationConfig(),
           "on_commit"_a = nb::none(), "on_done"_a = nb::none(), nb::keep_alive<0, 1>(),
           nb::sig(request_signature("submit_infill", "canvas_ids", false).c_str()),
           "Like infill, but returns at once; callbacks as for submit.")
      .def("logits", &logits, "ids"_a, "positions"_a, "block_length"_a = nb::none(),
           nb::sig(logits_signature),
           "Runs the model once without a cache and waits for the logits.\n\n"
           "ids: int32 of shape [T]; mask tokens are allowed. positions: indices into ids.\n"
           "block_length: of block-causal attention; None = the package's. Returns float32 of "
           "shape\n"
           "[len(positions), vocab_size]; the package's logits_shift is not applied.")
      .def(
          "load", [](const PyEngine& e) { return e.engine->load(); },
          "How busy the engine is now. Never waits for a pass.")
      .def_prop_ro(
          "package", [](const PyEngine& e) -> const PackageInfo& { return e.engine->package(); },
          nb::rv_policy::reference_internal)
      .def_prop_ro(
          "backend", [](const PyEngine& e) { return e.engine->backend(); },
          "The backend's name, version and device, as text to show to a user.");
}

}  // namespace fastdllm::python
