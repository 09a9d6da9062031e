// TensorRT as a backend: runs engines that `fastdllm build-engine` made. libnvinfer and libcudart
// are found at run time; only their headers are compiled in, where they are at hand.
#pragma once

#include <memory>

#include "../device.hpp"
#include "fastdllm/backend.hpp"

namespace fastdllm {

struct PackageInfo;

/// Whether this build has the backend.
[[nodiscard]] bool has_tensorrt() noexcept;

/// Whether an engine was named, or one for this GPU lies beside the package. It may still be
/// refused: then it is an error, and not a reason to run something else.
/// Errors: Error{backend} when CUDA or the GPU is missing.
[[nodiscard]] bool finds_tensorrt_engine(const PackageInfo& package, const SessionOptions& options,
                                         const Device& device);

/// Errors: Error{backend} when a library, the GPU or the engine is missing or too old, or the
/// engine is of another GPU, TensorRT or package; Error{bad_package} when it is damaged.
[[nodiscard]] std::unique_ptr<Session> open_tensorrt_session(const PackageInfo& package,
                                                             const SessionOptions& options,
                                                             const Device& device);

}  // namespace fastdllm
