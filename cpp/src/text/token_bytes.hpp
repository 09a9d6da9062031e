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
  /// document: the whole file. Errors: Error{bad_package} for a decoder other than ByteLevel.
  TokenBytes(const JsonReader& document, const Vocabulary& vocabulary,
             const std::vector<AddedToken>& added);

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
  std::string bytes_;                  // of all tokens, by id
  std::vector<std::uint32_t> begins_;  // [size + 1]; an id without a token has no bytes
  std::vector<bool> special_;          // [size]
};

}  // namespace fastdllm
