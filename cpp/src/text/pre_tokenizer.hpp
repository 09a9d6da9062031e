// The `pre_tokenizer` of a tokenizer.json: cuts text into the words that BPE works on.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "support/json_reader.hpp"
#include "text/regex.hpp"

namespace fastdllm {

class PreTokenizer {
 public:
  /// Cuts nothing.
  PreTokenizer() = default;
  /// Errors: Error{bad_package} for a kind that is not implemented, or behind a ByteLevel.
  explicit PreTokenizer(const JsonReader& description);

  /// The words are bytes, else characters.
  [[nodiscard]] bool is_byte_level() const noexcept { return is_byte_level_; }

  /// text: UTF-8, borrowed. storage: keeps words that are not in the text as they stand; the words
  /// are valid while it and the text are.
  [[nodiscard]] std::vector<std::string_view> split(std::string_view text,
                                                    std::deque<std::string>& storage) const;

 private:
  struct Numeric {};  // every character of Unicode that is a number
  enum class Behavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };
  struct Match {
    TextRange range;
    bool is_match = false;
  };
  struct Step {
    std::variant<Regex, Numeric> pattern;
    Behavior behavior = Behavior::isolated;
    bool invert = false;
  };

  [[nodiscard]] static std::vector<TextRange> find(const Step& step, std::string_view text);
  [[nodiscard]] static std::vector<Match> cover(const Step& step, std::string_view text);
  static void apply(const Step& step, std::string_view text, std::vector<std::string_view>& words);
  void add(const JsonReader& description);
  void add_split(const JsonReader& description);
  void add_byte_level(const JsonReader& description);
  [[nodiscard]] static Behavior read_behavior(const JsonReader& description);

  std::vector<Step> steps_;
  bool is_byte_level_ = false;
  bool add_prefix_space_ = false;
  std::size_t prefix_at_ = 0;  // before this step
};

}  // namespace fastdllm
