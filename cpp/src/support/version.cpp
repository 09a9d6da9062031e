#include "fastdllm/version.h"

namespace fastdllm {

const char* version() noexcept {
  return FASTDLLM_VERSION;
}

}  // namespace fastdllm
