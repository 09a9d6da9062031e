// The schedule of a request: how many positions a pass commits, and when the cache is refreshed.
#pragma once

#include <cstdint>

#include "fastdllm/generation.hpp"
#include "loop/cursor.hpp"
#include "rules/unmask_policy.hpp"

namespace fastdllm {

/// What a pass over a block may do.
struct Pace {
  std::int64_t quota = 0;        ///< positions to commit by the schedule
  double rate = 1.0;             ///< by which Remasking::origin reveals each
  double masked_fraction = 1.0;  ///< of what is being filled, for threshold_decay
  bool first_alone = false;      ///< the block's first position is committed alone
  bool last = false;             ///< the schedule leaves no further pass over the range
};

class Pacing {
 public:
  /// config is borrowed.
  Pacing(const GenerationConfig& config, std::int64_t num_blocks);

  /// The passes that follow are the block's that `cursor` has entered. rows_behind: rows behind the
  /// block that its steps feed.
  void enter_block(const Cursor& cursor, std::int64_t rows_behind) noexcept;
  /// The pace of the next pass. of_block: masked positions of the block, `eligible` of which the
  /// pass may commit. Passes that would commit nothing are left out.
  [[nodiscard]] Pace next(std::int64_t of_block, std::int64_t eligible) noexcept;
  /// A pass has committed so many positions.
  void count_pass(std::int64_t commits) noexcept;

  /// Whether the next pass is a refresh, by the passes and tokens since the last one.
  [[nodiscard]] bool wants_refresh() const noexcept;
  /// The next pass is a refresh.
  void count_refresh() noexcept { passes_since_refresh_ = commits_since_refresh_ = 0; }

 private:
  const GenerationConfig& config_;
  StepSchedule schedule_;
  std::int64_t number_ = 0;  // of the block
  std::int64_t shared_ = 1;  // positions that its passes share
  std::int64_t index_ = 0;   // of its next pass
  bool first_alone_ = false;
  std::int64_t masked_at_start_ = 0, rows_behind_ = 0;
  std::int64_t passes_since_refresh_ = 0, commits_since_refresh_ = 0;
};

}  // namespace fastdllm
