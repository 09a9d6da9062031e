// UTF-8 as Unicode defines it: no surrogates, no overlong forms, at most U+10FFFF.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fastdllm::utf8 {

constexpr char32_t replacement = 0xFFFD;

struct Character {
  char32_t code = replacement;
  std::size_t length = 0;  ///< bytes; of an invalid one those that one U+FFFD stands for
  bool valid = false;
};

/// The first character of a text that is not empty. What is no character ends before the first byte
/// that cannot follow (the "maximal subpart" of the Unicode standard, as in Rust and Python).
[[nodiscard]] Character first(std::string_view text) noexcept;

[[nodiscard]] bool is_valid(std::string_view text) noexcept;
/// The text with U+FFFD for what is no character.
[[nodiscard]] std::string replace_invalid(std::string_view text);
void append(std::string& text, char32_t code);

}  // namespace fastdllm::utf8
