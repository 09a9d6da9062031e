// The new tokens of a request: commits them, calls the callback, and finds the end of the answer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/canvas.hpp"
#include "fastdllm/generation.hpp"

namespace fastdllm {

/// What a callback gets about a pass beside its commits.
struct PassReport {
  std::int64_t step = 0;    // within the request
  std::int64_t number = 0;  // of the block
  BlockRange block;
  bool finished = false;  // the block
  bool refreshed = false;
  std::int64_t rows = 0;
};

class Answer {
 public:
  /// All references are borrowed. stop_ids: tokens that end the answer.
  Answer(Canvas& canvas, const GenerationConfig& config, std::vector<std::int32_t> stop_ids,
         const CommitCallback& on_commit);

  /// Begins a pass: nothing is committed by it yet.
  void begin_pass() noexcept;
  /// Writes a token. Positions behind the tokens asked for are decoded with their block, not told.
  void commit(std::int64_t position, std::int32_t token_id, double confidence);
  /// Calls the callback for the pass; false ends the generation.
  [[nodiscard]] bool report(const PassReport& pass) const;

  /// Whether the tokens end the generation after a pass, or after a block was finished. Tokens that
  /// can still be edited end nothing, nor does a stop token whose block is to be filled.
  [[nodiscard]] std::optional<FinishReason> ended_by_tokens();
  [[nodiscard]] std::optional<FinishReason> ended_by_block(const BlockRange& block);

  /// Whether this token ends the answer.
  [[nodiscard]] bool stops_at(std::int32_t token_id) const noexcept;

  /// The result's tokens, for the reason that ended the generation.
  [[nodiscard]] std::span<const std::int32_t> token_ids(FinishReason reason) const;
  /// Natural logarithms of the confidences with which the first `count` new tokens were committed.
  [[nodiscard]] std::vector<double> logprobs(std::size_t count) const;

 private:
  [[nodiscard]] bool holds_stop_token() const;

  Canvas& canvas_;
  const GenerationConfig& config_;
  std::vector<std::int32_t> stop_ids_;
  const CommitCallback& on_commit_;
  std::int64_t filled_blocks_end_ = 0;               // of the new tokens; all before it are final
  std::vector<std::int32_t> positions_, token_ids_;  // committed by the last pass
  std::vector<double> confidences_;
  std::vector<double> committed_;  // confidence of each new token at its latest commit
};

}  // namespace fastdllm
