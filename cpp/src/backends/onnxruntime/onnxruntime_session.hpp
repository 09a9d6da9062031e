// ONNX Runtime as a backend. The library is found at run time; only its headers are compiled in.
#pragma once

#include <filesystem>
#include <memory>

#include "fastdllm/backend.hpp"

namespace fastdllm {

/// Errors: Error{backend} when the library is missing or too old (listing what was tried) or fails;
/// Error{bad_package} when it refuses the graph.
[[nodiscard]] std::unique_ptr<Session> open_onnxruntime_session(const std::filesystem::path& graph,
                                                                const SessionOptions& options);

}  // namespace fastdllm
