#include "fastdllm/package.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace fastdllm::python {

void bind_package(nb::module_& m) {
  m.attr("supported_format_version") = supported_format_version;
  m.def(
      "precisions", [] { return std::vector<std::string>(precisions.begin(), precisions.end()); },
      "What a package's precision may be.");
  nb::class_<PackageInfo>(m, "PackageInfo", "Facts of a package, as fastdllm.json states them.")
      .def_prop_ro("path", [](const PackageInfo& p) { return p.path.string(); })
      .def_ro("format_version", &PackageInfo::format_version)
      .def_ro("family", &PackageInfo::family, "For people; nothing branches on it.")
      .def_ro("precision", &PackageInfo::precision, "'fp32', 'fp16', 'bf16', 'int8' or 'int4'.")
      .def_ro("opset", &PackageInfo::opset)
      .def_prop_ro("graph", [](const PackageInfo& p) { return p.graph.string(); })
      .def_prop_ro("cache_type",
                   [](const PackageInfo& p) { return std::string(name_of(p.cache_type)); })
      .def_ro("num_layers", &PackageInfo::num_layers)
      .def_ro("num_heads", &PackageInfo::num_heads)
      .def_ro("num_kv_heads", &PackageInfo::num_kv_heads)
      .def_ro("head_dim", &PackageInfo::head_dim)
      .def_ro("hidden_size", &PackageInfo::hidden_size)
      .def_ro("vocab_size", &PackageInfo::vocab_size)
      .def_ro("max_context_length", &PackageInfo::max_context_length)
      .def_ro("mask_token_id", &PackageInfo::mask_token_id)
      .def_ro("eos_token_ids", &PackageInfo::eos_token_ids)
      .def_ro("pad_token_id", &PackageInfo::pad_token_id)
      .def_ro("bos_token_id", &PackageInfo::bos_token_id)
      .def_prop_ro("attention",
                   [](const PackageInfo& p) { return std::string(name_of(p.attention)); })
      .def_ro("logits_shift", &PackageInfo::logits_shift)
      .def_ro("block_length", &PackageInfo::block_length)
      .def_ro("sub_block_length", &PackageInfo::sub_block_length)
      .def_ro("seed_token", &PackageInfo::seed_token)
      .def_ro("threshold_inclusive", &PackageInfo::threshold_inclusive)
      .def_prop_ro("confidence",
                   [](const PackageInfo& p) { return std::string(name_of(p.confidence)); })
      .def_ro("min_prompt_length", &PackageInfo::min_prompt_length)
      .def_ro(
          "score_bytes", &PackageInfo::score_bytes,
          "Host memory of a pass per pair of a row fed and a row attended to; 0: no such memory.");
  m.def(
      "read_package", [](const std::string& folder) { return read_package(folder); }, "folder"_a,
      "Reads and checks a package's fastdllm.json and its files' sizes. Errors: PackageError.");
}

}  // namespace fastdllm::python
