// The one exception type of the library. A message says where, what was expected, what was found.
#pragma once

#include <stdexcept>
#include <string>

#include "fastdllm/export.h"

namespace fastdllm {

enum class ErrorCode {
  bad_package,  // the package folder is missing, damaged, inconsistent or from the future
  bad_config,   // a generation option or a prompt that cannot be honoured
  backend,      // the inference library is missing, too old, or failed in a run
  overloaded,   // too many requests are waiting: try again later
  numeric,      // the model answered with NaN or something that is no probability
};

class FASTDLLM_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace fastdllm
