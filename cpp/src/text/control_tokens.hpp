// Control tokens written inside a message are encoded as text: they neither end nor mask it.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/text.hpp"
#include "text/added_tokens.hpp"

namespace fastdllm {

/// A character that stands for a control token's text, and that text.
using Marks = std::map<char32_t, std::string>;

class ControlTokens {
 public:
  /// tokens: a tokenizer's. ids: control tokens beside those that the tokenizer calls special;
  /// texts: the same, by what is written.
  ControlTokens(const std::vector<AddedToken>& tokens, std::span<const std::int32_t> ids,
                std::span<const std::string> texts);

  /// The messages with a mark in place of each control token; `marks` gets what each stands for.
  [[nodiscard]] std::vector<Message> mark(std::span<const Message> messages, Marks& marks) const;

 private:
  AddedTokenFinder finder_;
};

/// The text with the control tokens in place of their marks.
[[nodiscard]] std::string without_marks(std::string_view text, const Marks& marks);

}  // namespace fastdllm
