// Text in, text out: an engine together with the package's tokenizer and chat format. In the CMake
// target fastdllm::text.
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

/// The answer to a prompt. Python's Completion has the same fields.
struct Completion {
  std::string text;  ///< without special tokens
  /// Up to and including the end-of-text token; or up to the last token with text before the stop
  /// string.
  std::vector<std::int32_t> token_ids;
  std::vector<double> logprobs;  ///< one per token
  FinishReason finish_reason = FinishReason::length;
  std::optional<std::string> stop;  ///< the stop string that ended the text, or none
  std::int64_t num_passes = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;  ///< including the stop string or the end-of-text token
  GenerationStats stats;
};

/// What one pass added to an answer. Borrowed, valid only during the callback. All pieces together
/// are the completion's text. If text was held back until the end, one more event follows whose
/// commit has no positions.
struct TextEvent {
  const CommitEvent& commit;
  std::string_view piece;  ///< the text that became final in this pass, often ""
  std::string_view text;   ///< all final text so far
};

/// Called after every pass, on the engine's thread, until the request has ended. Returning false
/// ends the answer with FinishReason::abort, unless this pass has already ended it; the callback is
/// not called again.
using TextCallback = std::function<bool(const TextEvent&)>;

/// The config of a request that is made without one: threshold 0.9, Fast-dLLM's default. (A
/// GenerationConfig{} decodes one token per pass.)
[[nodiscard]] FASTDLLM_API GenerationConfig default_text_config();

/// The text options of one request, in addition to its GenerationConfig.
struct TextOptions {
  /// Strings, none empty, before which the text ends with FinishReason::stop. The request ends with
  /// the pass that completes one of them.
  std::vector<std::string> stop{};
  bool raw = false;  ///< use the prompt as it is, without the chat format
  /// Variables of the chat template, see TextCodec::render_chat().
  std::string chat_template_kwargs{};
};

/// A submitted request for text. Copies refer to the same request. All functions are thread-safe. A
/// TextRequest may outlive its LLM: destroying the LLM ends the request with FinishReason::abort. A
/// default-constructed TextRequest refers to no request and must not be asked for anything.
class FASTDLLM_API TextRequest {
 public:
  TextRequest() = default;
  /// Waits until the answer is complete and on_done has returned. The answer to a cancelled request
  /// is the text so far. Errors: as Request::result().
  [[nodiscard]] Completion result() const;
  /// Waits at most `time` (inside a callback of the engine not at all). Returns whether result()
  /// would return at once.
  [[nodiscard]] bool wait_for(std::chrono::nanoseconds time) const;
  /// Whether the answer is complete. on_done may still be running.
  [[nodiscard]] bool done() const;
  /// Ends the request before its next pass, with FinishReason::abort. Does nothing when the request
  /// has already ended.
  void cancel() const noexcept;

 private:
  friend class LLM;
  struct State;
  explicit TextRequest(std::shared_ptr<State> state) noexcept;
  std::shared_ptr<State> state_;
};

/// A loaded package that answers prompts and chats:
/// @code
///   fastdllm::LLM llm(argv[1]);
///   std::cout << llm.generate(argv[2]).text << '\n';
/// @endcode
///
/// Thread-safe: the requests of all threads are decoded side by side by one Engine.
class FASTDLLM_API LLM {
 public:
  /// Loads the package folder. Errors: Error{bad_package}, also when the package has no tokenizer
  /// (use Engine then); Error{backend}; Error{bad_config}.
  explicit LLM(const std::filesystem::path& package, const SessionOptions& options = {},
               const EngineLimits& limits = {});
  /// For an own engine or a test.
  LLM(Engine engine, TextCodec codec);
  /// Ends all requests with FinishReason::abort.
  ~LLM();
  LLM(LLM&&) noexcept;
  LLM& operator=(LLM&&) noexcept;

  /// Answers a prompt and waits for the answer. If the package has a chat template, the prompt is
  /// sent as one user message, unless options.raw is set. Errors: as Engine::generate().
  [[nodiscard]] Completion generate(std::string_view prompt,
                                    const GenerationConfig& config = default_text_config(),
                                    const TextOptions& options = {},
                                    const TextCallback& on_text = {});
  /// Answers the last message of a chat and waits for the answer. Errors: as generate() and
  /// TextCodec::render_chat().
  [[nodiscard]] Completion chat(std::span<const Message> messages,
                                const GenerationConfig& config = default_text_config(),
                                const TextOptions& options = {}, const TextCallback& on_text = {});
  /// Like generate() and chat(), but return at once. on_done: called on the engine's thread when
  /// the answer is complete, before result() returns on another thread.
  [[nodiscard]] TextRequest submit(std::string_view prompt,
                                   const GenerationConfig& config = default_text_config(),
                                   const TextOptions& options = {}, TextCallback on_text = {},
                                   DoneCallback on_done = {});
  [[nodiscard]] TextRequest submit_chat(std::span<const Message> messages,
                                        const GenerationConfig& config = default_text_config(),
                                        const TextOptions& options = {}, TextCallback on_text = {},
                                        DoneCallback on_done = {});

  /// The token ids that generate() would use for this prompt.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view prompt, bool raw = false) const;

  [[nodiscard]] Engine& engine() noexcept;
  [[nodiscard]] const TextCodec& codec() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastdllm
