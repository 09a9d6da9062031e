// Stands for the backend in a build without TensorRT's headers.
#include "fastdllm/error.hpp"
#include "tensorrt_session.hpp"

namespace fastdllm {

bool has_tensorrt() noexcept {
  return false;
}

bool finds_tensorrt_engine(const PackageInfo&, const SessionOptions&, const Device&) {
  return false;
}

std::unique_ptr<Session> open_tensorrt_session(const PackageInfo&, const SessionOptions&,
                                               const Device&) {
  throw Error(ErrorCode::backend,
              "this fastdllm was built without TensorRT; build it with TENSORRT_ROOT naming the "
              "folder whose include/ holds NvInferRuntime.h");
}

}  // namespace fastdllm
