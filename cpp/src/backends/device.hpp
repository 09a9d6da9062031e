// Where a backend computes, as SessionOptions::device names it.
#pragma once

#include <string>

namespace fastdllm {

struct Device {
  bool cuda = false;  ///< else the CPU
  int index = 0;      ///< of the GPU, as CUDA counts
};

/// "cpu", "cuda" (the first GPU) or "cuda:N". Errors: Error{bad_config}.
[[nodiscard]] Device parse_device(const std::string& name);

}  // namespace fastdllm
