// Text in, text out: an engine with a package's tokenizer and chat format. Part of fastdllm::text.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/engine.hpp"
#include "fastdllm/export.h"
#include "fastdllm/generation.hpp"
#include "fastdllm/text.hpp"

namespace fastdllm {

/// An answer: its text without special tokens, and what the engine says of it. The fields are those
/// of Python's Completion.
struct Completion {
  std::string text;
  /// Up to the end-of-text token that ended the answer, or the last one that holds text before the
  /// stop string.
  std::vector<std::int32_t> token_ids;
  std::vector<double> logprobs;  ///< one per token
  FinishReason finish_reason = FinishReason::length;
  std::optional<std::string> stop;  ///< the stop string that ended the text
  std::int64_t num_passes = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;  ///< the stop string or end-of-text token included
  GenerationStats stats;
};

/// One pass of an answer. piece: the text that became final with it, often ""; text: all final
/// text. Borrowed, valid during the callback only. Pieces add up to the completion's text: where
/// some was held back until the end, a last event has it, whose commit holds no positions.
struct TextEvent {
  const CommitEvent& commit;
  std::string_view piece;
  std::string_view text;
};

/// Called after every pass, on the engine's thread, and not after the request has ended; false ends
/// the answer with `abort`, unless this pass has ended it, and is its last call.
using TextCallback = std::function<bool(const TextEvent&)>;

/// Threshold 0.9 (the paper's): what is used where no config is given. GenerationConfig{} is one
/// token per pass.
[[nodiscard]] FASTDLLM_API GenerationConfig default_text_config();

/// Of one request, beside its GenerationConfig.
struct TextOptions {
  /// Strings, none empty, before which the text ends, with `stop`; the request ends with the pass
  /// that completes one.
  std::vector<std::string> stop{};
  bool raw = false;  ///< a prompt as it stands, without the chat format
};

/// An answer under way. Copies are the same answer; thread-safe; may outlive the LLM, which ends
/// those it leaves behind with `abort`. An empty one has no answer to ask about.
class FASTDLLM_API TextRequest {
 public:
  TextRequest() = default;
  /// Waits until the answer is there and on_done has returned; the same each time. A cancelled
  /// answer has the text so far. Errors: as Request::result().
  [[nodiscard]] Completion result() const;
  /// Waits so long at most, in a callback of the engine not at all; whether result() would return
  /// at once.
  [[nodiscard]] bool wait_for(std::chrono::nanoseconds time) const;
  /// Whether the answer is there; on_done may still run.
  [[nodiscard]] bool done() const;
  /// Ends the request before its next pass with `abort`; one that has ended stays as it is.
  void cancel() const noexcept;

 private:
  friend class LLM;
  struct State;
  explicit TextRequest(std::shared_ptr<State> state) noexcept;
  std::shared_ptr<State> state_;
};

/// A package with its text. Safe to use from many threads: requests are decoded side by side by one
/// Engine, see there.
class FASTDLLM_API LLM {
 public:
  /// Errors: Error{bad_package}, also for a package without a tokenizer (use Engine then);
  /// Error{backend}; Error{bad_config}.
  explicit LLM(const std::filesystem::path& package, const SessionOptions& options = {},
               const EngineLimits& limits = {});
  /// For an engine of your own (tests do this).
  LLM(Engine engine, TextCodec codec);
  /// Ends the requests under way.
  ~LLM();
  LLM(LLM&&) noexcept;
  LLM& operator=(LLM&&) noexcept;

  /// A prompt is one user message through the chat format if the package has a chat template (raw:
  /// as it stands). Errors: Error{bad_config}, Error{overloaded} before any pass; see
  /// Engine::generate().
  [[nodiscard]] Completion generate(std::string_view prompt,
                                    const GenerationConfig& config = default_text_config(),
                                    const TextOptions& options = {},
                                    const TextCallback& on_text = {});
  [[nodiscard]] Completion chat(std::span<const Message> messages,
                                const GenerationConfig& config = default_text_config(),
                                const TextOptions& options = {}, const TextCallback& on_text = {});
  /// The same without waiting. on_done: called on the engine's thread when the answer is there,
  /// before result() returns on another thread.
  [[nodiscard]] TextRequest submit(std::string_view prompt,
                                   const GenerationConfig& config = default_text_config(),
                                   const TextOptions& options = {}, TextCallback on_text = {},
                                   DoneCallback on_done = {});
  [[nodiscard]] TextRequest submit_chat(std::span<const Message> messages,
                                        const GenerationConfig& config = default_text_config(),
                                        const TextOptions& options = {}, TextCallback on_text = {},
                                        DoneCallback on_done = {});

  /// The ids of a prompt, as generate() sees it.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view prompt, bool raw = false) const;

  [[nodiscard]] Engine& engine() noexcept;
  [[nodiscard]] const TextCodec& codec() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastdllm
