// The plan of one graph run, without tensors, and the planner.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cache/canvas.hpp"
#include "fastdllm/generation.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm {

/// Cached rows that a pass attends to.
enum class Past {
  none,
  committed,  ///< of finished blocks: exact, kept from pass to pass and from request to request
  refreshed,  ///< as the block's (or sub-block's) last refresh pass left them
};

struct Pass {
  /// Absolute canvas positions of the rows fed, in feed order. [T]
  std::vector<std::int64_t> rows;
  /// Indices into `rows` whose predictions are wanted. [N], N >= 1
  std::vector<std::int64_t> logit_rows;
  Past past = Past::none;
  /// Leading rows of (cached + fed) whose K/V the pass hands back, 0 = none. They become the
  /// committed rows where `commit`, else the refreshed ones, of which later passes attend to the
  /// first `visible_length`.
  std::int64_t present_length = 0;
  std::int64_t visible_length = 0;
  bool commit = false;
  /// > 0: a row sees the rows of its own block of this length and of earlier ones. 0: it sees all.
  std::int64_t causal_block_length = 0;

  [[nodiscard]] bool fills_cache() const noexcept {
    return past == Past::none || present_length > 0;
  }
};

/// Rows fed times rows attended to: a pass that commits finished blocks has no more, or one block.
constexpr std::int64_t max_attention_pairs = std::int64_t{1} << 22;

/// Kept rows are rounded up to a multiple of this.
[[nodiscard]] std::int64_t bucket_of(std::int64_t block_length) noexcept;

/// Plans passes for a cache mode and the model's facts (Fast-dLLM, arXiv 2505.22618, section 3.2;
/// v2, arXiv 2509.26328). Within what a row sees the order of keys is free: a pass feeds what will
/// be cached first and the block last, and its leading K/V rows are the cache as they are. Of a
/// refresh a few rows more are kept, unseen, so that the steps of requests of about the same length
/// have the same shapes and can share a graph run.
///
/// Results are borrowed and valid until the next call; planning a step allocates nothing.
class PassPlanner {
 public:
  /// mode: not automatic. suffix_window: masked rows behind the block that a pass feeds, beside the
  /// canvas's last row (Streaming-dLLM, arXiv 2601.17917); none = all. Bidirectional only.
  PassPlanner(CacheMode mode, const PackageInfo& package, const Canvas& canvas,
              std::optional<std::int64_t> suffix_window = {});

  /// A pass that decodes `range` (a block or sub-block) of `block`. wanted: positions whose
  /// predictions are asked for. refresh: the range's first pass, or its first position is masked
  /// and only a row outside predicts it. last: known to be the range's last pass.
  [[nodiscard]] const Pass& plan(const BlockRange& block, const BlockRange& range,
                                 std::span<const std::int64_t> wanted, bool refresh, bool last);

  /// Block-causal: a pass over finished rows that are not committed yet, or nullptr when what is
  /// left goes along with the block's first pass. It commits a part of them, all up to
  /// `block.start` at last. for_seed: the pass that ends at block.start is wanted for its last row.
  [[nodiscard]] const Pass* plan_commit(const BlockRange& block, bool for_seed);

  /// Block-causal: a pass that keeps `length` committed rows and drops those behind them.
  [[nodiscard]] const Pass& plan_cut(std::int64_t length);

  [[nodiscard]] std::int64_t committed() const noexcept { return committed_; }
  void set_committed(std::int64_t rows) noexcept { committed_ = rows; }

  /// Rows behind the block that its steps feed.
  [[nodiscard]] std::int64_t suffix_rows_of_step(const BlockRange& block) const noexcept;

  /// The most K/V rows that any pass returns.
  [[nodiscard]] std::int64_t max_cached_rows() const noexcept;
  /// The most rows that any pass feeds.
  [[nodiscard]] std::int64_t max_fed_rows() const noexcept;

 private:
  void feed(std::int64_t start, std::int64_t end);
  void feed_suffix(const BlockRange& block);
  void keep(std::int64_t rows);
  void want(std::span<const std::int64_t> positions);
  void plan_bidirectional(const BlockRange& block, bool refresh, bool last);
  void plan_block_causal(const BlockRange& block, const BlockRange& range, bool refresh);
  [[nodiscard]] std::int64_t largest_commit() const noexcept;
  [[nodiscard]] bool keeps_sub_blocks() const noexcept;

  CacheMode mode_;
  bool block_causal_;
  std::int64_t shift_;
  std::int64_t canvas_length_;
  std::int64_t block_length_;
  std::int64_t last_block_start_;
  bool has_sub_blocks_;
  std::optional<std::int64_t> suffix_window_;
  std::int64_t bucket_;  // kept rows are rounded up to a multiple of it
  std::int64_t committed_ = 0;
  std::int64_t stepped_start_ = -1;  // the range whose step rows stand in pass_, -1 = none
  Pass pass_;
  std::vector<std::int64_t> row_of_;  // canvas position -> index in rows of the last feed
};

}  // namespace fastdllm
