#include "text/byte_alphabet.hpp"

#include <array>

#include "text/utf8.hpp"

namespace fastdllm {
namespace {

constexpr bool prints(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

constexpr std::array<char32_t, 256> characters = [] {
  std::array<char32_t, 256> made{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < made.size(); ++byte) made[byte] = prints(byte) ? byte : next++;
  return made;
}();

constexpr std::size_t no_byte = 256;

// All characters of the alphabet lie below this.
constexpr char32_t alphabet_end = 0x144;

constexpr std::array<std::size_t, alphabet_end> bytes = [] {
  std::array<std::size_t, alphabet_end> made{};
  made.fill(no_byte);
  for (std::size_t byte = 0; byte < characters.size(); ++byte) made[characters[byte]] = byte;
  return made;
}();

}  // namespace

char32_t alphabet_character(unsigned char byte) noexcept {
  return characters[byte];
}

std::string to_alphabet(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (const char c : text) utf8::append(out, alphabet_character(static_cast<unsigned char>(c)));
  return out;
}

std::string from_alphabet(std::string_view token) {
  std::string out;
  for (std::string_view rest = token; !rest.empty();) {
    const utf8::Character next = utf8::first(rest);
    if (next.code >= alphabet_end || bytes[next.code] == no_byte) return std::string(token);
    out += static_cast<char>(bytes[next.code]);
    rest.remove_prefix(next.length);
  }
  return out;
}

}  // namespace fastdllm
