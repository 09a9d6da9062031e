// Text to token ids and back, as a model's tokenizer.json says. Part of fastdllm::text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/export.h"

namespace fastdllm {

/// Byte-level BPE: gives the ids of the `tokenizers` library. Immutable; every function may be
/// called from every thread. What a file asks for that is not implemented is refused by name.
class FASTDLLM_API Tokenizer {
 public:
  /// Errors: Error{bad_package} naming the file, the key, expected and found.
  explicit Tokenizer(const std::filesystem::path& file);
  /// The same from the file's content; `name` is for messages.
  [[nodiscard]] static Tokenizer parse(std::string_view json,
                                       std::string_view name = "tokenizer.json");
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// UTF-8 text as it stands, no tokens added around it; special tokens written in it are
  /// recognized. Bytes that are no UTF-8 are read as U+FFFD, as a lossy decoder reads them.
  /// Errors: Error{bad_package} where a split pattern of the file backtracks too much on this text.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text) const;

  /// Always UTF-8: bytes that are none become U+FFFD. Special tokens are dropped, or written out.
  /// Ids without a token are skipped.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids,
                                   bool skip_special_tokens = true) const;

  /// The tokens' bytes as they are: what decode() makes UTF-8 of.
  [[nodiscard]] std::string decode_bytes(std::span<const std::int32_t> ids,
                                         bool skip_special_tokens = true) const;

  /// The id of a whole token, special ones included.
  [[nodiscard]] std::optional<std::int32_t> token_id(std::string_view token) const;
  /// The largest id + 1.
  [[nodiscard]] std::int64_t vocab_size() const noexcept;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state) noexcept;
  std::unique_ptr<const State> state_;
};

}  // namespace fastdllm
