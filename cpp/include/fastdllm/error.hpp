// The only exception type that the library throws.
#pragma once

#include <stdexcept>
#include <string>

#include "fastdllm/export.h"

namespace fastdllm {

enum class ErrorCode {
  bad_package,  ///< the package folder is missing, damaged, inconsistent or of a newer format
  bad_config,   ///< an option or a prompt that is not allowed
  backend,      ///< the inference library is missing or too old, or failed in a run
  overloaded,   ///< too many requests are waiting: try again later
  numeric,      ///< the model's output is NaN or not a probability
};

/// what() says where the problem is, what was expected and what was found.
class FASTDLLM_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace fastdllm
