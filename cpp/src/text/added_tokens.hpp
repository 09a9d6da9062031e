// The `added_tokens` of a tokenizer.json: found in the text before anything else looks at it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/json_reader.hpp"
#include "text/normalizer.hpp"
#include "text/vocabulary.hpp"

namespace fastdllm {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool special = false;
  bool single_word = false;  ///< only where no letter or digit touches it
  bool lstrip = false;       ///< takes the white space before it along
  bool rstrip = false;
  bool normalized = false;  ///< looked for in normalized text
};

/// A piece of text, or the token that it is.
struct TextPart {
  std::string_view text;
  std::optional<std::int32_t> token;
};

/// Finds tokens in a text, the left-most first and of these the longest.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  /// tokens: in their order of precedence where two look for the same text.
  AddedTokenFinder(const std::vector<AddedToken>& tokens, const Normalizer& normalizer);

  /// text: UTF-8, borrowed by the parts.
  void split(std::string_view text, std::vector<TextPart>& parts) const;

 private:
  struct Entry {
    std::string text;
    AddedToken token;
  };
  [[nodiscard]] const Entry* longest(std::string_view text) const;

  std::vector<Entry> entries_;            // sorted by text
  std::array<std::size_t, 257> begin_{};  // of the entries with this first byte
};

/// Errors: Error{bad_package}, also for ids other than those that the `tokenizers` library gives,
/// which numbers added tokens itself.
[[nodiscard]] std::vector<AddedToken> read_added_tokens(const JsonReader& document,
                                                        const Vocabulary& vocabulary);

}  // namespace fastdllm
