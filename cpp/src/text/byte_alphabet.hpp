// Byte-level BPE writes each byte as a character that prints (GPT-2's alphabet): the bytes that
// print in Latin-1 as themselves, the other ones as U+0100 and up.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace fastdllm {

/// The character of each byte.
[[nodiscard]] char32_t alphabet_character(unsigned char byte) noexcept;
/// Bytes, written in the alphabet.
[[nodiscard]] std::string to_alphabet(std::string_view bytes);
/// The bytes of a token. One with any other character stands for itself. token: UTF-8.
[[nodiscard]] std::string from_alphabet(std::string_view token);

/// How vocabularies of characters write a byte: "<0x41>".
[[nodiscard]] std::string byte_token(unsigned char byte);
/// The byte that such a token stands for.
[[nodiscard]] std::optional<unsigned char> byte_of_token(std::string_view token) noexcept;

}  // namespace fastdllm
