// A compiled split pattern, on PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "support/json_reader.hpp"

namespace fastdllm {

/// Bytes [begin, end) of a text.
struct TextRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// Immutable; usable from every thread.
class Regex {
 public:
  /// pattern: in Oniguruma's syntax. where: its key, for messages. Errors: Error{bad_package}.
  [[nodiscard]] static Regex compile(std::string_view pattern, std::string_view where);
  /// Matches the text itself.
  [[nodiscard]] static Regex literal(std::string_view text, std::string_view where);

  /// All matches from left to right, found as the onig crate's find_iter finds them: an empty match
  /// right behind another match does not count. text: UTF-8. Errors: Error{bad_package} when the
  /// pattern backtracks without end on this text.
  [[nodiscard]] std::vector<TextRange> find_all(std::string_view text) const;

 private:
  struct Code;
  explicit Regex(std::shared_ptr<const Code> code) noexcept : code_(std::move(code)) {}
  [[nodiscard]] static Regex make(const std::string& pattern, unsigned options,
                                  std::string_view where);

  std::shared_ptr<const Code> code_;  // shared by copies, never changed
};

/// The `pattern` of a tokenizer.json's entry: {"String": ...} or {"Regex": ...}. Errors:
/// Error{bad_package}.
[[nodiscard]] Regex read_pattern(const JsonReader& description);

}  // namespace fastdllm
