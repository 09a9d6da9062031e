// Where an ONNX model says that the data of its tensors lies. Read here and not left to the
// inference library: some open any file that a model names.
#pragma once

#include <cstddef>
#include <set>
#include <span>
#include <string>

namespace fastdllm {

/// The locations of external data that a model's tensors name, wherever one may stand:
/// initializers, attributes, subgraphs, functions. Only what holds tensors is entered, at most 100
/// messages deep. Errors: Error{bad_package} for bytes that are no ONNX model, with their offset;
/// "model.onnx" is what messages call it.
[[nodiscard]] std::set<std::string> external_locations(std::span<const std::byte> model,
                                                       const std::string& name);

}  // namespace fastdllm
