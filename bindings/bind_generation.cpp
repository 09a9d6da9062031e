#include "fastdllm/generation.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include "bindings.hpp"
#include "event.hpp"
#include "fastdllm/error.hpp"
#include "threads.hpp"

using namespace nb::literals;

namespace fastdllm::python {
namespace {

nb::dict stats_to_dict(const GenerationStats& stats) {
  nb::dict fields;
  fields["refresh_passes"] = stats.refresh_passes;
  fields["step_passes"] = stats.step_passes;
  fields["reused_rows"] = stats.reused_rows;
  fields["rows_computed"] = stats.rows_computed;
  fields["logit_rows_computed"] = stats.logit_rows_computed;
  fields["graph_seconds"] = stats.graph_seconds;
  fields["total_seconds"] = stats.total_seconds;
  fields["cache_bytes"] = stats.cache_bytes;
  return fields;
}

template <typename T>
auto array_of(const std::vector<T>& values) {
  using Array = nb::ndarray<nb::numpy, const T, nb::ndim<1>>;
  return Made<Array>{Array(values.data(), {values.size()})};
}

void bind_stats(nb::module_& m) {
  nb::class_<GenerationStats>(m, "GenerationStats", "What one generation computed.")
      .def_ro("refresh_passes", &GenerationStats::refresh_passes,
              "Passes that started from nothing or filled the cache.")
      .def_ro("step_passes", &GenerationStats::step_passes, "Passes that only read a cache.")
      .def_ro("reused_rows", &GenerationStats::reused_rows,
              "Prompt rows whose K/V an earlier request had left.")
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
      .def_ro("block_finished", &OwnedEvent::block_finished, "The block's tokens are final.")
      .def_ro("refreshed", &OwnedEvent::refreshed,
              "Whether the pass started from nothing or filled the cache; else it was a step.")
      .def_ro("rows", &OwnedEvent::rows, "Rows that the pass fed to the graph.")
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
      .def_prop_ro(
          "logprobs", [](const GenerationResult& r) { return array_of(r.logprobs); },
          nb::rv_policy::reference_internal,
          "float64 [n] natural logarithm of each token's confidence when it was committed.")
      .def_ro("num_passes", &GenerationResult::num_passes, "Graph runs (the papers' NFE).")
      .def_prop_ro(
          "finish_reason",
          [](const GenerationResult& r) { return std::string(name_of(r.finish_reason)); },
          "'stop', 'length' or 'abort'.")
      .def_ro("stats", &GenerationResult::stats, nb::rv_policy::reference_internal);
}

}  // namespace

void bind_generation(nb::module_& m) {
  bind_stats(m);
  bind_event(m);
  bind_result(m);
}

}  // namespace fastdllm::python
