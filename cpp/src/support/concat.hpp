// Builds an error message from its parts (GCC 12 has no std::format).
#pragma once

#include <sstream>
#include <string>
#include <string_view>

namespace fastdllm {

template <typename... Parts>
[[nodiscard]] std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

/// A message that holds a text of anyone: a NUL would cut it, and terminals obey other controls.
[[nodiscard]] inline std::string printable(std::string_view message) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7F) {
      text += c;
    } else {
      text.append("\\u00").append({digits[byte >> 4], digits[byte & 15]});
    }
  }
  return text;
}

}  // namespace fastdllm
