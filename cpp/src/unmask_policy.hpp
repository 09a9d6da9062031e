// Which masked positions of a block a pass commits. Pure functions of scores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fastdllm/generation.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm {

/// How many positions each pass commits where a schedule decides. `steps` is divided over the
/// `num_blocks` blocks (or sub-blocks), the first ones one more, at least one each;
/// `steps_per_block` is given to each. Without either a block gets one pass per token.
class StepSchedule {
 public:
  /// first_token: a block's first pass commits exactly one position, whatever the schedule.
  StepSchedule(const GenerationConfig& config, std::int64_t num_blocks, bool first_token);

  /// Positions to commit at pass `index` (from 0) of block `block` of `length` positions of which
  /// `masked` are masked. Even split: the first passes one more, at least 1. With eps (time steps
  /// as in arXiv 2508.15487): int(masked * (1 - t[index + 1] / t[index])), in f32, all on the last
  /// pass; 0 = nothing would be committed, the pass can be left out.
  [[nodiscard]] std::int64_t quota(std::int64_t block, std::int64_t index, std::int64_t length,
                                   std::int64_t masked) const noexcept;
  /// The probability that pass `index` reveals a masked position; 1 on the last pass.
  [[nodiscard]] double rate(std::int64_t block, std::int64_t index, std::int64_t length,
                            std::int64_t masked) const noexcept;
  [[nodiscard]] std::int64_t steps_of(std::int64_t block, std::int64_t length) const noexcept;

 private:
  [[nodiscard]] float time_step(std::int64_t index, std::int64_t steps) const noexcept;
  [[nodiscard]] float revealed(std::int64_t index, std::int64_t steps) const noexcept;

  std::int64_t steps_;  // over all blocks, 0 = one pass per token
  std::int64_t steps_per_block_;
  std::int64_t num_blocks_;
  bool first_token_;
  std::optional<float> eps_;
};

/// Chooses among the candidates of one pass; scratch memory is kept between passes.
/// Ties go to the lowest index. `chosen` comes back ascending and never empty for non-empty input,
/// but for Remasking::origin.
class UnmaskPolicy {
 public:
  UnmaskPolicy(const GenerationConfig& config, bool threshold_inclusive)
      : config_(config), threshold_inclusive_(threshold_inclusive) {}

  /// scores: one per candidate, no NaN. quota: used by the schedule; with a threshold at least so
  /// many are chosen. rate: used by origin. The result is borrowed and valid until the next call.
  [[nodiscard]] std::span<const std::size_t> choose(std::span<const double> scores,
                                                    std::int64_t quota, double rate);

  /// True where the schedule alone decides.
  [[nodiscard]] bool uses_schedule() const noexcept {
    return !config_.factor && !config_.threshold;
  }

 private:
  void rank(std::span<const double> scores);
  [[nodiscard]] std::size_t count_by_factor(std::span<const double> scores) const;
  [[nodiscard]] std::size_t count_by_threshold(std::span<const double> scores) const;

  GenerationConfig config_;
  bool threshold_inclusive_;
  std::vector<std::size_t> order_;
};

}  // namespace fastdllm
