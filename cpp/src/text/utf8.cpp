#include "text/utf8.hpp"

#include <algorithm>

namespace fastdllm::utf8 {
namespace {

struct Lead {
  std::size_t length = 0;                   // 0: begins no character
  unsigned char least = 0x80, most = 0xBF;  // of the second byte
};

Lead lead_of(unsigned char byte) noexcept {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {};
}

}  // namespace

Character first(std::string_view text) noexcept {
  const auto byte = static_cast<unsigned char>(text[0]);
  const Lead lead = lead_of(byte);
  if (lead.length == 1) return {byte, 1, true};
  if (lead.length == 0) return {replacement, 1, false};
  char32_t code = byte & (0x7FU >> lead.length);
  for (std::size_t at = 1; at < lead.length; ++at) {
    const unsigned char least = at == 1 ? lead.least : 0x80;
    const unsigned char most = at == 1 ? lead.most : 0xBF;
    const auto next = at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
    if (next < least || next > most) return {replacement, at, false};
    code = (code << 6) | (next & 0x3FU);
  }
  return {code, lead.length, true};
}

bool is_valid(std::string_view text) noexcept {
  while (!text.empty()) {
    const Character next = first(text);
    if (!next.valid) return false;
    text.remove_prefix(next.length);
  }
  return true;
}

std::string replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character next = first(text);
    if (next.valid) {
      out += text.substr(0, next.length);
    } else {
      append(out, replacement);
    }
    text.remove_prefix(next.length);
  }
  return out;
}

void append(std::string& text, char32_t code) {
  const auto tail = [code](int shift) {
    return static_cast<char>(0x80U | ((code >> shift) & 0x3FU));
  };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += {static_cast<char>(0xC0U | (code >> 6)), tail(0)};
  } else if (code < 0x10000) {
    text += {static_cast<char>(0xE0U | (code >> 12)), tail(6), tail(0)};
  } else {
    text += {static_cast<char>(0xF0U | (code >> 18)), tail(12), tail(6), tail(0)};
  }
}

}  // namespace fastdllm::utf8
