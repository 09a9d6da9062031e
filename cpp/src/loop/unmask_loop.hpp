// The loop that everything hangs off: plan a pass, run it, choose positions, commit them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/canvas.hpp"
#include "cache/model.hpp"
#include "cache/pass.hpp"
#include "fastdllm/generation.hpp"
#include "loop/answer.hpp"
#include "loop/cursor.hpp"
#include "loop/pacing.hpp"
#include "loop/pass_tally.hpp"
#include "loop/request_needs.hpp"
#include "loop/token_editing.hpp"
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
  [[nodiscard]] std::int64_t max_cached_rows() const noexcept { return needs_.largest_run.cached; }
  [[nodiscard]] std::int64_t batch() const noexcept { return needs_.largest_run.batch; }
  /// The largest sizes of its passes.
  [[nodiscard]] const RunSizes& largest_run() const noexcept { return needs_.largest_run; }
  /// Rows to compute if every pass commits one token: how long the request may take beside others.
  [[nodiscard]] double max_rows() const noexcept { return needs_.rows; }
  /// Committed rows of a former request that this one would go on from; 0 but for block-causal
  /// models.
  [[nodiscard]] std::int64_t rows_to_reuse(const BlockCache& cache) const {
    return fastdllm::rows_to_reuse(package_, config_, canvas_, cache);
  }

  /// Takes up the request with a cache of its own, of batch(); goes on from what is committed in it
  /// as far as the prompt begins like that.
  void start(BlockCache& cache);
  /// The next pass, or nullptr when the request has ended. Valid until take().
  [[nodiscard]] Feed* next() {
    feed_.pass = plan();
    return feed_.pass == nullptr ? nullptr : &feed_;
  }
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

  const Pass* plan();
  const Pass* plan_decode();
  void take_commit();
  void take_decode();
  std::int64_t choose(const Proposals& proposals);
  void commit(const Proposals& proposals);
  [[nodiscard]] bool report(bool block_finished) const;
  void enter_block(std::int64_t number);
  void leave_range();

  // What does not change.
  const PackageInfo& package_;
  const GenerationConfig config_;  // resolved; the parts below borrow it
  const CommitCallback on_commit_;

  // Its parts, in the order in which a pass goes through them.
  Canvas canvas_;
  Answer answer_;
  Cursor cursor_;
  Pacing pacing_;
  TokenEditing editing_;
  PassPlanner planner_;
  Sampler sampler_;
  UnmaskPolicy policy_;
  const RequestNeeds needs_;

  // How far it is.
  Stage stage_ = Stage::decode;
  std::optional<FinishReason> ended_;
  std::int64_t step_ = 0;  // passes that proposed tokens: keys the noise
  PassTally tally_;

  // The next pass.
  Feed feed_;
  Pace pace_;
  std::span<const std::int64_t> wanted_;    // positions whose predictions are asked for
  bool was_filled_ = false;                 // the range, before the pass
  std::vector<double> scores_, entropies_;  // of the masked positions among the wanted ones
  std::vector<std::size_t> masked_;         // their indices
  std::vector<std::size_t> writes_;         // indices of what the pass writes, ascending
};

}  // namespace fastdllm
