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

/// True where no rule of confidences decides how many positions a pass commits.
[[nodiscard]] inline bool goes_by_schedule(const GenerationConfig& config) noexcept {
  return !config.threshold && !config.factor && !config.frechet && !config.entropy_bound;
}

/// How many positions each pass commits where a schedule decides. `steps` is divided over the
/// `num_blocks` blocks, the first ones one more, at least one each; `steps_per_block` is given to
/// each. A block's passes share `shared` positions: those that are masked when it begins, so that
/// what was given of it takes no part (arXiv 2502.09992). Block-causal models with steps_per_block
/// share the whole block, as their references do. Without either option a block gets one pass per
/// token.
class StepSchedule {
 public:
  /// first_token: a block's first pass commits exactly one position, whatever the schedule.
  StepSchedule(const GenerationConfig& config, std::int64_t num_blocks, bool first_token);

  /// The same for the passes that follow.
  void set_first_token(bool first_token) noexcept { first_token_ = first_token; }

  /// Positions to commit at pass `index` (from 0) of block `block`, `masked` of which are masked
  /// now. Even split: the first passes one more, at least 1. With eps (time steps as in arXiv
  /// 2508.15487): int(masked * (1 - t[index + 1] / t[index])), in f32, all on the last pass; 0 =
  /// nothing would be committed, the pass can be left out.
  [[nodiscard]] std::int64_t quota(std::int64_t block, std::int64_t index, std::int64_t shared,
                                   std::int64_t masked) const noexcept;
  /// The probability that pass `index` reveals each of `masked` eligible positions; 1 on the last.
  [[nodiscard]] double rate(std::int64_t block, std::int64_t index, std::int64_t shared,
                            std::int64_t quota, std::int64_t masked) const noexcept;
  [[nodiscard]] std::int64_t steps_of(std::int64_t block, std::int64_t shared) const noexcept;

 private:
  [[nodiscard]] float time_step(std::int64_t index, std::int64_t steps) const noexcept;
  [[nodiscard]] float revealed(std::int64_t index, std::int64_t steps) const noexcept;

  std::int64_t steps_;  // over all blocks, 0 = one pass per token
  std::int64_t steps_per_block_;
  std::int64_t num_blocks_;
  bool first_token_;
  std::optional<float> eps_;
};

/// Scores of the masked positions that a pass may commit, in ascending order of position.
struct Candidates {
  std::span<const double> scores;       ///< what ranks them, best first; no NaN
  std::span<const double> entropies{};  ///< nats, one per score; read by entropy_bound only
};

/// Chooses among the candidates of one pass; scratch memory is kept between passes. One object
/// serves one request and sees its passes in order, so a rule that compares passes keeps its
/// history here and reads what it needs of a position from Candidates. Ties go to the lowest index.
/// `chosen` comes back ascending and never empty for non-empty input, but for Remasking::origin.
class UnmaskPolicy {
 public:
  /// config is borrowed.
  UnmaskPolicy(const GenerationConfig& config, bool threshold_inclusive)
      : config_(config), threshold_inclusive_(threshold_inclusive) {}
  UnmaskPolicy(GenerationConfig&&, bool) = delete;

  /// quota: used by the schedule; with a threshold and steps_per_block at least so many are chosen.
  /// rate: used by origin. masked_fraction: in (0, 1], how much of what is being filled is masked;
  /// used by threshold_decay. The result is borrowed and valid until the next call.
  [[nodiscard]] std::span<const std::size_t> choose(const Candidates& candidates,
                                                    std::int64_t quota, double rate,
                                                    double masked_fraction);

 private:
  void rank(std::span<const double> scores);
  // These three count from the best on: order_ is ranked.
  [[nodiscard]] std::size_t count_by_factor(std::span<const double> scores) const;
  [[nodiscard]] std::size_t count_by_frechet(std::span<const double> scores) const;
  [[nodiscard]] std::size_t count_by_entropy(std::span<const double> entropies) const;
  [[nodiscard]] std::size_t count_by_threshold(std::span<const double> scores,
                                               double masked_fraction) const;

  const GenerationConfig& config_;
  bool threshold_inclusive_;
  std::vector<std::size_t> order_;
};

}  // namespace fastdllm
