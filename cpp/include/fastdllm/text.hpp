// A package's tokenizer and chat format, and streaming of text from left to right. In the CMake
// target fastdllm::text.
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
#include "fastdllm/tokenizer.hpp"

namespace fastdllm {

/// One message of a chat. role: "system", "user" or "assistant", if the chat format has that role.
struct Message {
  std::string role;
  std::string content;
};

/// A package's tokenizer and chat format. Immutable and thread-safe.
class FASTDLLM_API TextCodec {
 public:
  /// Reads tokenizer (and checks its SHA-256) and chat format from the package folder. Errors:
  /// Error{bad_package}, also when the package has no tokenizer.
  explicit TextCodec(const std::filesystem::path& package);
  ~TextCodec();
  TextCodec(TextCodec&&) noexcept;
  TextCodec& operator=(TextCodec&&) noexcept;

  [[nodiscard]] const Tokenizer& tokenizer() const noexcept;
  /// Whether the package has a chat template.
  [[nodiscard]] bool has_chat() const noexcept;
  /// The text of a chat in the model's format, ending with the header of the assistant's answer.
  /// Errors: Error{bad_config} for messages that the format does not accept (no message, an unknown
  /// role, content that the chat template would treat specially), and for a package without a chat
  /// format. The error says why it has none: no chat template, a template that does more than a
  /// format can express, or a package exported before chat formats existed.
  [[nodiscard]] std::string render_chat(std::span<const Message> messages) const;
  /// The token ids of render_chat()'s text. Errors: as there.
  /// The same with variables of the chat template, a JSON object: {"enable_thinking": false}. ""
  /// and {} ask for nothing. Errors: Error{bad_config} for variables that the package has no chat
  /// format for; the message lists those that it has.
  [[nodiscard]] std::string render_chat(std::span<const Message> messages,
                                        std::string_view chat_template_kwargs) const;
  /// The ids of messages. What is written in them is text: a control token there (`<|im_end|>`, the
  /// mask token) becomes none. tokenizer().encode(render_chat(messages)) lets it be one.
  [[nodiscard]] std::vector<std::int32_t> encode_chat(std::span<const Message> messages) const;
  [[nodiscard]] std::vector<std::int32_t> encode_chat(std::span<const Message> messages,
                                                      std::string_view chat_template_kwargs) const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

/// Compares this library's results with those that the exporter stored in the package's
/// probes.json: token ids of texts, and chats as text where the package has a chat format. Returns
/// one line per difference; empty = all are equal. Errors: Error{bad_package}.
[[nodiscard]] FASTDLLM_API std::vector<std::string> check_text(
    const std::filesystem::path& package);

/// Makes text from left to right out of commits in any order. Call push() with the positions and
/// ids of every CommitEvent, then finish().
///
/// Text is final once no earlier position is masked. A piece of text ends on a whole character, and
/// text that may be the beginning of a stop string is held back. The text ends before the stop
/// string that is complete first. Not thread-safe. Python's TextStream gives the same pieces.
class FASTDLLM_API TextStream {
 public:
  /// codec: borrowed; must outlive the stream. stop_ids: tokens that end the text. stop: strings
  /// before which the text ends. Errors: Error{bad_config} for a string that is empty or not UTF-8.
  TextStream(const TextCodec& codec, std::vector<std::int32_t> stop_ids,
             std::vector<std::string> stop = {});
  ~TextStream();
  TextStream(TextStream&&) noexcept;
  TextStream& operator=(TextStream&&) noexcept;

  /// Takes one pass's commits (one id per position) and returns the text that became final, often
  /// empty.
  [[nodiscard]] std::string push(std::span<const std::int32_t> positions,
                                 std::span<const std::int32_t> token_ids);
  /// Returns the text that was held back; an incomplete character becomes U+FFFD.
  [[nodiscard]] std::string finish();
  /// All text that push() and finish() returned so far.
  [[nodiscard]] const std::string& text() const noexcept;
  /// The stop string that ended the text, or none.
  [[nodiscard]] const std::optional<std::string>& stop() const noexcept;
  /// The smallest number of tokens, counted from the first, whose text begins with `text`. `text`
  /// must be the beginning of the answer's text.
  [[nodiscard]] std::int64_t tokens_of(std::string_view text) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastdllm
