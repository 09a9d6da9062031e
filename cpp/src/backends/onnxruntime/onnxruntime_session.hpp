// ONNX Runtime as a backend. The library is found at run time; only its headers are compiled in.
#pragma once

#include <filesystem>
#include <memory>

#include "../device.hpp"
#include "fastdllm/backend.hpp"

namespace fastdllm {

/// On the CPU, or on a GPU by ONNX Runtime's CUDA provider; the cache then lies on the GPU and
/// never leaves it. Errors: Error{backend} when the library is missing or too old (listing what was
/// tried) or fails, or has no CUDA provider, or there is no GPU; Error{bad_package} when it refuses
/// the graph.
[[nodiscard]] std::unique_ptr<Session> open_onnxruntime_session(const std::filesystem::path& graph,
                                                                const SessionOptions& options,
                                                                const Device& device);

}  // namespace fastdllm
