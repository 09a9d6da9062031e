// Which masked positions of a block a pass commits. Pure functions of confidences.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fastdllm/generation.hpp"

namespace fastdllm {

/// Passes given to each block by the fixed schedule: `steps` over `num_blocks`, the first blocks
/// one more, at least one each. Without `steps` a block gets one pass per token.
class StepSchedule {
 public:
  StepSchedule(const GenerationConfig& config, std::int64_t num_blocks);

  /// Positions to commit at pass `index` (from 0) of block `block` that began with `block_masks`
  /// masked positions: an even split, the first passes one more, at least 1.
  [[nodiscard]] std::int64_t quota(std::int64_t block, std::int64_t index,
                                   std::int64_t block_masks) const noexcept;
  [[nodiscard]] std::int64_t steps_of(std::int64_t block, std::int64_t block_masks) const noexcept;

 private:
  std::int64_t steps_;  // 0 = one pass per token
  std::int64_t num_blocks_;
};

/// Chooses among the candidates of one pass; scratch memory is kept between passes.
/// Ties go to the lowest index. `chosen` comes back ascending and never empty for non-empty input.
class UnmaskPolicy {
 public:
  explicit UnmaskPolicy(const GenerationConfig& config) : config_(config) {}

  /// confidences: one per candidate, any order of size, no NaN. quota: used by the fixed schedule.
  /// The result is borrowed and valid until the next call.
  [[nodiscard]] std::span<const std::size_t> choose(std::span<const double> confidences,
                                                    std::int64_t quota);

  /// True where the fixed schedule decides, so that the pass's quota matters.
  [[nodiscard]] bool uses_quota() const noexcept { return !config_.factor && !config_.threshold; }

 private:
  void rank(std::span<const double> confidences);
  [[nodiscard]] std::size_t count_by_factor(std::span<const double> confidences) const;

  GenerationConfig config_;
  std::vector<std::size_t> order_;
};

}  // namespace fastdllm
