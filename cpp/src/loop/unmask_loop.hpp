// The loop that everything hangs off: plan a pass, run it, choose positions, commit them.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/canvas.hpp"
#include "cache/model.hpp"
#include "cache/pass.hpp"
#include "fastdllm/generation.hpp"
#include "loop/answer.hpp"
#include "rules/sampler.hpp"
#include "rules/unmask_policy.hpp"

namespace fastdllm {

/// One request: it says which pass it wants next and takes what the pass predicts, so that others
/// can have theirs between. Decodes block by block until the canvas is filled, an end-of-text token
/// ends it, or the callback says so (Fast-dLLM, arXiv 2505.22618, algorithm 1).
class UnmaskLoop {
 public:
  /// canvas and config are valid for the package, which is borrowed. infills: the canvas is full of
  /// given tokens, no token ends it.
  UnmaskLoop(const PackageInfo& package, Canvas canvas, const GenerationConfig& config,
             bool infills, CommitCallback on_commit);
  UnmaskLoop(const UnmaskLoop&) = delete;
  UnmaskLoop& operator=(const UnmaskLoop&) = delete;

  /// The most K/V rows that this request holds at a time, and of how many rows of a batch.
  [[nodiscard]] std::int64_t most_cached_rows() const noexcept;
  [[nodiscard]] std::int64_t batch() const noexcept { return config_.cfg_scale > 0.0 ? 2 : 1; }
  /// The largest sizes of its passes.
  [[nodiscard]] RunSizes largest_run() const noexcept;
  /// Rows to compute if every pass commits one token: how long the request may take beside others.
  [[nodiscard]] double most_rows() const noexcept;
  /// Committed rows of a former request that this one would go on from; 0 but for block-causal
  /// models.
  [[nodiscard]] std::int64_t rows_to_reuse(const BlockCache& cache) const noexcept;

  /// Takes up the request with a cache of its own, of batch(); goes on from what is committed in it
  /// as far as the prompt begins like that.
  void start(BlockCache& cache);
  /// The pass that is wanted, or nullptr when the request has ended. Valid until take().
  [[nodiscard]] Feed* next();
  /// Commits what the pass predicts and calls the callback. Errors: Error{numeric}, the callback's.
  void take();
  /// Ends the request before its next pass; one that has ended keeps its end.
  void abort() noexcept {
    if (!ended_) ended_ = FinishReason::abort;
  }
  [[nodiscard]] bool has_ended() const noexcept { return ended_.has_value(); }

  [[nodiscard]] GenerationResult result() const;

 private:
  enum class Stage { cut, commit, decode };

  [[nodiscard]] std::int64_t block_length() const noexcept { return canvas_.block(0).length(); }
  const Pass* plan();
  const Pass* plan_decode();
  void enter_block(std::int64_t number);
  void enter_range(std::int64_t index);
  void leave_range();
  void take_commit();
  void take_decode();
  [[nodiscard]] bool report(bool block_finished) const;
  std::int64_t choose_and_commit(const Proposals& proposals);
  void commit(const Proposals& proposals, std::size_t i);
  [[nodiscard]] bool is_deferred() const noexcept { return config_.deferred_window.has_value(); }
  [[nodiscard]] bool wants_refresh() const;
  [[nodiscard]] BlockRange eligible_range();

  const PackageInfo& package_;
  GenerationConfig config_;
  CommitCallback on_commit_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  Canvas canvas_;
  Answer answer_;
  PassPlanner planner_;
  bool refresh_predicts_first_;  // a block's first token, and no other pass's rows do
  bool first_token_;             // of this block: it is masked and the refresh commits it alone
  StepSchedule schedule_;
  Sampler sampler_;
  UnmaskPolicy policy_;
  GenerationStats stats_;
  std::int64_t num_passes_ = 0;
  Feed feed_;

  // Where it stands.
  Stage stage_ = Stage::decode;
  std::optional<FinishReason> ended_;
  std::int64_t number_ = 0;   // of the block
  BlockRange block_, range_;  // the block, and the sub-block that is decoded
  std::int64_t range_index_ = 0;
  std::int64_t masked_at_start_ = 0;  // positions of the block
  std::int64_t shared_ = 1;           // positions that the block's passes share, for the schedule
  bool seed_ = false;                 // the commit pass gives the block's first token
  std::int64_t index_ = 0;            // passes of the block, for the schedule
  std::int64_t step_ = 0;             // passes that proposed tokens: keys the noise
  bool fresh_ = true;                 // no pass over the range yet
  std::int64_t post_steps_ = 0;       // passes that only edited it
  std::int64_t steps_since_refresh_ = 0, commits_since_refresh_ = 0;

  // The pass that is wanted.
  std::span<const std::int64_t> wanted_;
  std::int64_t masked_count_ = 0, quota_ = 0;
  double rate_ = 1.0, masked_fraction_ = 1.0;
  std::vector<double> scores_, entropies_;  // of the masked positions among the wanted ones
  std::vector<std::size_t> masked_;         // their indices
};

}  // namespace fastdllm
