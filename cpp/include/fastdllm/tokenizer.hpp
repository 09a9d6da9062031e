// Text to token ids and back, by a model's tokenizer.json. In the CMake target fastdllm::text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/export.h"

namespace fastdllm {

struct AddedToken;
class TextCodec;

/// A BPE tokenizer (of bytes, or of characters with byte fallback) with the ids of the `tokenizers`
/// library. Immutable and thread-safe. Parts of tokenizer.json that are not implemented are refused
/// with their name.
class FASTDLLM_API Tokenizer {
 public:
  /// Errors: Error{bad_package} naming the file, the key, expected and found.
  explicit Tokenizer(const std::filesystem::path& file);
  /// Makes a tokenizer of the file's content. `name` appears in error messages. Errors: as above.
  [[nodiscard]] static Tokenizer parse(std::string_view json,
                                       std::string_view name = "tokenizer.json");
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// Token ids of UTF-8 text. No tokens are added before or after it. The text of a special token
  /// becomes that token. Invalid UTF-8 is read as U+FFFD. Errors: Error{bad_package} when a split
  /// pattern of tokenizer.json backtracks too much on this text.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text) const;

  /// Text of token ids, always valid UTF-8: invalid bytes become U+FFFD. Special tokens are left
  /// out unless skip_special_tokens is false. Ids without a token are skipped.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids,
                                   bool skip_special_tokens = true) const;

  /// Like decode(), but returns the bytes of the tokens unchanged: perhaps not valid UTF-8.
  [[nodiscard]] std::string decode_bytes(std::span<const std::int32_t> ids,
                                         bool skip_special_tokens = true) const;

  /// The id of one token, given by its whole text; special tokens too. None = there is none.
  [[nodiscard]] std::optional<std::int32_t> token_id(std::string_view token) const;
  /// The largest id + 1.
  [[nodiscard]] std::int64_t vocab_size() const noexcept;

 private:
  friend class TextCodec;
  struct State;
  [[nodiscard]] const std::vector<AddedToken>& added_tokens() const noexcept;
  // marks: characters that stand for a text in which no added token is looked for.
  [[nodiscard]] std::vector<std::int32_t> encode_marked(
      std::string_view text, const std::map<char32_t, std::string>& marks) const;
  explicit Tokenizer(std::unique_ptr<const State> state) noexcept;
  std::unique_ptr<const State> state_;
};

}  // namespace fastdllm
