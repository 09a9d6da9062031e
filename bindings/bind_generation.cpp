#include "fastdllm/generation.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bindings.hpp"
#include "event.hpp"
#include "fastdllm/error.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace fastdllm::python {
namespace {

// nanobind would answer a negative seed with its list of overloads.
std::uint64_t seed_from(nb::handle seed) {
  const nb::object number = nb::steal(PyNumber_Index(seed.ptr()));
  if (!number.is_valid()) throw nb::python_error();
  const std::uint64_t value = PyLong_AsUnsignedLongLong(number.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw Error(ErrorCode::bad_config, "seed is " + nb::cast<std::string>(nb::str(seed)) +
                                           "; expected an integer in [0, 2**64)");
  }
  return value;
}

void init_config(GenerationConfig* self, std::int64_t max_new_tokens, std::int64_t block_length,
                 std::optional<std::int64_t> steps, std::optional<double> threshold,
                 std::optional<double> factor, const std::string& cache,
                 const std::string& remasking, double temperature, double cfg_scale,
                 nb::handle seed, bool ignore_eos) {
  const GenerationConfig config{.max_new_tokens = max_new_tokens,
                                .block_length = block_length,
                                .steps = steps,
                                .threshold = threshold,
                                .factor = factor,
                                .cache = parse_cache_mode(cache),
                                .remasking = parse_remasking(remasking),
                                .temperature = temperature,
                                .cfg_scale = cfg_scale,
                                .seed = seed_from(seed),
                                .ignore_eos = ignore_eos};
  validate(config);
  new (self) GenerationConfig(config);
}

nb::dict to_dict(const GenerationConfig& config) {
  nb::dict fields;
  fields["max_new_tokens"] = config.max_new_tokens;
  fields["block_length"] = config.block_length;
  fields["steps"] = config.steps;
  fields["threshold"] = config.threshold;
  fields["factor"] = config.factor;
  fields["cache"] = std::string(name_of(config.cache));
  fields["remasking"] = std::string(name_of(config.remasking));
  fields["temperature"] = config.temperature;
  fields["cfg_scale"] = config.cfg_scale;
  fields["seed"] = config.seed;
  fields["ignore_eos"] = config.ignore_eos;
  return fields;
}

bool equals(const GenerationConfig& config, nb::handle other) {
  return nb::isinstance<GenerationConfig>(other) && config == nb::cast<GenerationConfig>(other);
}

std::size_t refuse_hash(const GenerationConfig&) {
  throw nb::type_error("unhashable type: GenerationConfig, its options can change");
}

std::string repr(const GenerationConfig& config) {
  std::string text = "GenerationConfig(";
  for (const auto& [key, value] : to_dict(config)) {
    if (text.back() != '(') text += ", ";
    text += nb::cast<std::string>(key) + "=" + nb::cast<std::string>(nb::repr(value));
  }
  return text + ")";
}

nb::dict stats_to_dict(const GenerationStats& stats) {
  nb::dict fields;
  fields["refresh_passes"] = stats.refresh_passes;
  fields["step_passes"] = stats.step_passes;
  fields["rows_computed"] = stats.rows_computed;
  fields["logit_rows_computed"] = stats.logit_rows_computed;
  fields["graph_seconds"] = stats.graph_seconds;
  fields["total_seconds"] = stats.total_seconds;
  fields["cache_bytes"] = stats.cache_bytes;
  return fields;
}

template <typename T>
auto array_of(const std::vector<T>& values) {
  return nb::ndarray<nb::numpy, const T, nb::ndim<1>>(values.data(), {values.size()});
}

void bind_config(nb::module_& m) {
  nb::class_<GenerationConfig>(
      m, "GenerationConfig",
      "Options of one generation.\n\n"
      "max_new_tokens: positions to decode, >= 1. block_length: positions per block, >= 1.\n"
      "steps: passes over the whole generation, divided among the blocks; None = one token per "
      "pass.\n"
      "threshold: commit every position at least this confident, in (0, 1]; `steps` is then "
      "ignored.\n"
      "factor: the factor rule of Fast-dLLM, > 0; wins over threshold and steps.\n"
      "cache: 'none', 'prefix' or 'dual'. remasking: 'low_confidence' or 'random'.\n"
      "temperature: >= 0, 0 = arg-max. cfg_scale: >= 0, 0 = no classifier-free guidance.\n"
      "seed: of the noise, in [0, 2**64). ignore_eos: run every block instead of stopping.\n"
      "Errors: ConfigError naming the option, what is allowed and what was found.")
      .def("__init__", &init_config, nb::kw_only(), "max_new_tokens"_a = 128, "block_length"_a = 32,
           "steps"_a = nb::none(), "threshold"_a = nb::none(), "factor"_a = nb::none(),
           "cache"_a = "dual", "remasking"_a = "low_confidence", "temperature"_a = 0.0,
           "cfg_scale"_a = 0.0, "seed"_a = 0, "ignore_eos"_a = false,
           nb::sig("def __init__(self, *, max_new_tokens: int = 128, block_length: int = 32, "
                   "steps: int | None = None, threshold: float | None = None, "
                   "factor: float | None = None, cache: str = 'dual', "
                   "remasking: str = 'low_confidence', temperature: float = 0.0, "
                   "cfg_scale: float = 0.0, seed: int = 0, ignore_eos: bool = False) -> None"))
      .def_rw("max_new_tokens", &GenerationConfig::max_new_tokens)
      .def_rw("block_length", &GenerationConfig::block_length)
      .def_rw("steps", &GenerationConfig::steps, nb::for_setter(nb::arg().none()))
      .def_rw("threshold", &GenerationConfig::threshold, nb::for_setter(nb::arg().none()))
      .def_rw("factor", &GenerationConfig::factor, nb::for_setter(nb::arg().none()))
      .def_prop_rw(
          "cache", [](const GenerationConfig& c) { return std::string(name_of(c.cache)); },
          [](GenerationConfig& c, const std::string& name) { c.cache = parse_cache_mode(name); })
      .def_prop_rw(
          "remasking", [](const GenerationConfig& c) { return std::string(name_of(c.remasking)); },
          [](GenerationConfig& c, const std::string& name) { c.remasking = parse_remasking(name); })
      .def_rw("temperature", &GenerationConfig::temperature)
      .def_rw("cfg_scale", &GenerationConfig::cfg_scale)
      .def_prop_rw(
          "seed", [](const GenerationConfig& c) { return c.seed; },
          [](GenerationConfig& c, nb::handle seed) { c.seed = seed_from(seed); },
          nb::for_setter(nb::sig("def seed(self, seed: int, /) -> None")))
      .def_rw("ignore_eos", &GenerationConfig::ignore_eos)
      .def("to_dict", &to_dict, nb::sig("def to_dict(self) -> dict[str, object]"),
           "The options by name.")
      .def("__eq__", &equals, nb::arg().none(),
           nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", &refuse_hash)
      .def("__repr__", &repr);
}

void bind_stats(nb::module_& m) {
  nb::class_<GenerationStats>(m, "GenerationStats", "What one generation computed.")
      .def_ro("refresh_passes", &GenerationStats::refresh_passes, "Passes over the whole canvas.")
      .def_ro("step_passes", &GenerationStats::step_passes, "Passes that reused a cache.")
      .def_ro("rows_computed", &GenerationStats::rows_computed,
              "Rows fed to the graph, guidance rows included.")
      .def_ro("logit_rows_computed", &GenerationStats::logit_rows_computed,
              "Rows whose logits were computed, likewise.")
      .def_ro("graph_seconds", &GenerationStats::graph_seconds, "Seconds in the backend's runs.")
      .def_ro("total_seconds", &GenerationStats::total_seconds, "Seconds of the whole call.")
      .def_ro("cache_bytes", &GenerationStats::cache_bytes, "Bytes of K/V held by the block cache.")
      .def("to_dict", &stats_to_dict, nb::sig("def to_dict(self) -> dict[str, float]"),
           "The counts by name.");
}

void bind_event(nb::module_& m) {
  nb::class_<OwnedEvent>(m, "CommitEvent", "What one pass committed.")
      .def_ro("step", &OwnedEvent::step, "Pass within the request, from 0.")
      .def_ro("block", &OwnedEvent::block, "From 0.")
      .def_ro("block_start", &OwnedEvent::block_start, "First new token of the block.")
      .def_ro("block_end", &OwnedEvent::block_end, "One past the block's last new token.")
      .def_ro("block_finished", &OwnedEvent::block_finished, "No mask is left in the block.")
      .def_prop_ro(
          "positions", [](const OwnedEvent& e) { return array_of(e.positions); },
          nb::rv_policy::reference_internal, "int32 [n], ascending indices into the new tokens.")
      .def_prop_ro(
          "token_ids", [](const OwnedEvent& e) { return array_of(e.token_ids); },
          nb::rv_policy::reference_internal, "int32 [n].")
      .def_prop_ro(
          "confidences", [](const OwnedEvent& e) { return array_of(e.confidences); },
          nb::rv_policy::reference_internal, "float64 [n].");
}

void bind_result(nb::module_& m) {
  nb::class_<GenerationResult>(m, "GenerationResult", "What a generation gave.")
      .def_prop_ro(
          "token_ids", [](const GenerationResult& r) { return array_of(r.token_ids); },
          nb::rv_policy::reference_internal,
          "int32 [n] new tokens, a read-only view; never a mask token.")
      .def_ro("num_passes", &GenerationResult::num_passes, "Graph runs (the papers' NFE).")
      .def_prop_ro(
          "finish_reason",
          [](const GenerationResult& r) { return std::string(name_of(r.finish_reason)); },
          "'stop', 'length' or 'abort'.")
      .def_ro("stats", &GenerationResult::stats, nb::rv_policy::reference_internal);
}

}  // namespace

void bind_generation(nb::module_& m) {
  bind_config(m);
  bind_stats(m);
  bind_event(m);
  bind_result(m);
}

}  // namespace fastdllm::python
