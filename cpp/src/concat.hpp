// Builds an error message from its parts (GCC 12 has no std::format).
#pragma once

#include <sstream>
#include <string>

namespace fastdllm {

template <typename... Parts>
[[nodiscard]] std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace fastdllm
