#include "text/byte_alphabet.hpp"

#include <array>
#include <charconv>

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

std::string byte_token(unsigned char byte) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  return {'<', '0', 'x', digits[byte / 16U], digits[byte % 16U], '>'};
}

std::optional<unsigned char> byte_of_token(std::string_view token) noexcept {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  unsigned value = 0;
  const char* const end = token.data() + 5;
  const auto [stopped, problem] = std::from_chars(token.data() + 3, end, value, 16);
  if (problem != std::errc() || stopped != end) return std::nullopt;
  return static_cast<unsigned char>(value);
}

}  // namespace fastdllm
