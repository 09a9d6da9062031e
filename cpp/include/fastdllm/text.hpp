// A package's text: its tokenizer and chat format, and text that becomes final from left to right.
// Part of fastdllm::text.
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

/// role: "system", "user" or "assistant", as far as the chat format has them.
struct Message {
  std::string role;
  std::string content;
};

/// Text to token ids and back, as a package says. Immutable and thread-safe.
class FASTDLLM_API TextCodec {
 public:
  /// Reads the package's tokenizer, whose SHA-256 is verified, and chat format. Errors:
  /// Error{bad_package}, also for a package without a tokenizer.
  explicit TextCodec(const std::filesystem::path& package);
  ~TextCodec();
  TextCodec(TextCodec&&) noexcept;
  TextCodec& operator=(TextCodec&&) noexcept;

  [[nodiscard]] const Tokenizer& tokenizer() const noexcept;
  /// False: the package has no chat template.
  [[nodiscard]] bool has_chat() const noexcept;
  /// Messages as the model was trained to see them, with the assistant's header at the end.
  /// Errors: Error{bad_config} for messages that the format does not take (no message, an unknown
  /// role, a text that the template acts on), or a package without one (no chat template, one that
  /// is more than a format, exported before there was one: the message says which).
  [[nodiscard]] std::string render_chat(std::span<const Message> messages) const;
  [[nodiscard]] std::vector<std::int32_t> encode_chat(std::span<const Message> messages) const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

/// Compares what this library gives with what the exporter stored in the package's probes.json: the
/// ids of texts, and the text of conversations where the package has a chat format. A line per
/// difference; none: all is as stored. Errors: Error{bad_package}.
[[nodiscard]] FASTDLLM_API std::vector<std::string> check_text(
    const std::filesystem::path& package);

/// Turns commits at any positions into text from left to right, up to a stop string. A piece ends
/// on a whole character; what could begin a stop string waits. The text ends before the stop string
/// that is complete first. Not thread-safe. Gives what Python's TextStream gives.
class FASTDLLM_API TextStream {
 public:
  /// codec: borrowed. stop_ids: tokens that end the text. stop: strings before which it ends.
  /// Errors: Error{bad_config} for one that is empty or no UTF-8.
  TextStream(const TextCodec& codec, std::vector<std::int32_t> stop_ids,
             std::vector<std::string> stop = {});
  ~TextStream();
  TextStream(TextStream&&) noexcept;
  TextStream& operator=(TextStream&&) noexcept;

  /// One pass's commits; returns the text that is now final.
  [[nodiscard]] std::string push(std::span<const std::int32_t> positions,
                                 std::span<const std::int32_t> token_ids);
  /// What is left, an unfinished character as U+FFFD.
  [[nodiscard]] std::string finish();
  /// What was given out so far.
  [[nodiscard]] const std::string& text() const noexcept;
  /// The stop string that ended it.
  [[nodiscard]] const std::optional<std::string>& stop() const noexcept;
  /// The fewest tokens, from the first, that hold `text`, a beginning of the answer.
  [[nodiscard]] std::int64_t tokens_of(std::string_view text) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastdllm
