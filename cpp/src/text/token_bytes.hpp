// The `decoder` of a tokenizer.json: the bytes of each token, and text from ids.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/json_reader.hpp"
#include "text/added_tokens.hpp"
#include "text/vocabulary.hpp"

namespace fastdllm {

class TokenBytes {
 public:
  /// document: the whole file. is_byte_level: see Bpe. Errors: Error{bad_package} for a decoder
  /// other than ByteLevel, or than ByteFallback for tokens of characters.
  TokenBytes(const JsonReader& document, const Vocabulary& vocabulary,
             const std::vector<AddedToken>& added, bool is_byte_level);

  /// See Tokenizer::decode().
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids,
                                   bool skip_special_tokens) const;
  [[nodiscard]] std::string decode_bytes(std::span<const std::int32_t> ids,
                                         bool skip_special_tokens) const;
  /// The largest id + 1.
  [[nodiscard]] std::int64_t size() const noexcept {
    return static_cast<std::int64_t>(special_.size());
  }

 private:
  [[nodiscard]] std::string decode_runs(std::span<const std::int32_t> ids,
                                        bool skip_special_tokens) const;
  // Nothing for an id without a token, or one to skip.
  [[nodiscard]] std::string_view bytes_of(std::int32_t id, bool skip_special_tokens) const;

  std::string bytes_;                  // of all tokens, by id
  std::vector<std::uint32_t> begins_;  // [size + 1]; an id without a token has no bytes
  std::vector<bool> special_;          // [size]
  std::vector<bool> is_byte_;          // [size] of tokens of characters: it stands for a byte
  bool is_byte_level_;
};

}  // namespace fastdllm
