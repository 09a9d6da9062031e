// ONNX Runtime's CUDA provider: where a session's graph, cache and copies are on a GPU.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cstddef>
#include <memory>
#include <string>

#include "../cuda/cudart.hpp"

namespace fastdllm {

/// One GPU for one session. Graph and copies are put on one stream, so that a run sees what was
/// copied before it. Outlives the session.
class CudaProvider {
 public:
  /// index: the GPU, from 0. Errors: Error{backend} when this ONNX Runtime has no CUDA provider,
  /// or CUDA's runtime library, driver or GPU is missing.
  CudaProvider(const std::string& cudart_library, int index);

  /// Has the session run on the GPU; what the provider has no kernel for stays on the CPU. Errors:
  /// Error{backend} with ONNX Runtime's words, where its provider's own libraries are missing.
  void append_to(Ort::SessionOptions& options) const;

  [[nodiscard]] Ort::MemoryInfo memory_info() const;
  [[nodiscard]] std::unique_ptr<Memory> allocate(std::size_t bytes) const;
  void copy(void* target, const void* source, std::size_t bytes) const;
  [[nodiscard]] const cuda::Runtime& runtime() const noexcept { return *runtime_; }

 private:
  std::shared_ptr<const cuda::Runtime> runtime_;
  cuda::Stream stream_;
};

}  // namespace fastdllm
