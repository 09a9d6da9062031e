#include "rules/unmask_policy.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fastdllm {

StepSchedule::StepSchedule(const GenerationConfig& config, std::int64_t num_blocks,
                           bool first_token)
    : steps_(config.steps.value_or(0)),
      steps_per_block_(config.steps_per_block.value_or(0)),
      num_blocks_(num_blocks),
      first_token_(first_token) {
  if (config.eps && goes_by_schedule(config)) eps_ = static_cast<float>(*config.eps);
}

std::int64_t StepSchedule::steps_of(std::int64_t block, std::int64_t shared) const noexcept {
  if (steps_per_block_ > 0) return steps_per_block_;
  if (steps_ == 0) return shared;
  const std::int64_t share = steps_ / num_blocks_ + (block < steps_ % num_blocks_ ? 1 : 0);
  return std::max<std::int64_t>(share, 1);
}

// steps + 1 numbers evenly from 1 to eps, from the nearer end and rounded once, as torch does.
float StepSchedule::time_step(std::int64_t index, std::int64_t steps) const noexcept {
  const float stride = (*eps_ - 1.0F) / static_cast<float>(steps);
  if (index < (steps + 1) / 2) return std::fma(stride, static_cast<float>(index), 1.0F);
  return std::fma(-stride, static_cast<float>(steps - index), *eps_);
}

float StepSchedule::revealed(std::int64_t index, std::int64_t steps) const noexcept {
  return 1.0F - time_step(index + 1, steps) / time_step(index, steps);
}

std::int64_t StepSchedule::quota(std::int64_t block, std::int64_t index, std::int64_t shared,
                                 std::int64_t masked) const noexcept {
  std::int64_t steps = steps_of(block, shared);
  if (first_token_ && index == 0) return 1;
  if (eps_) {
    if (index >= steps - 1) return masked;
    return static_cast<std::int64_t>(static_cast<float>(masked) * revealed(index, steps));
  }
  if (first_token_) {
    steps = std::max<std::int64_t>(steps - 1, 1);
    --index;
    --shared;
  }
  return std::max<std::int64_t>(shared / steps + (index < shared % steps ? 1 : 0), 1);
}

double StepSchedule::rate(std::int64_t block, std::int64_t index, std::int64_t shared,
                          std::int64_t quota, std::int64_t masked) const noexcept {
  const std::int64_t steps = steps_of(block, shared);
  if (index >= steps - 1 || masked == 0) return 1.0;
  if (eps_) return double{revealed(index, steps)};
  return static_cast<double>(quota) / static_cast<double>(masked);
}

// Best first; equal scores keep the order of their positions.
void UnmaskPolicy::rank(std::span<const double> scores) {
  std::sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  });
}

// Fast-dLLM's factor rule (arXiv 2505.22618, section 3.3, as its code has it): the n-th most
// confident needs 1 - factor / (n + 1); when only the very last one fails, all are accepted.
std::size_t UnmaskPolicy::count_by_factor(std::span<const double> scores) const {
  const std::size_t count = order_.size();
  for (std::size_t n = 2; n < count; ++n) {
    const double limit = 1.0 - *config_.factor / static_cast<double>(n + 1);
    if (scores[order_[n - 1]] < limit) return n - 1;
  }
  return count;
}

// The Frechet profile (arXiv 2606.02955, its code's form): the lower bound on all n being right,
// minus the upper bound on a rival of the n-th, sinks with n.
std::size_t UnmaskPolicy::count_by_frechet(std::span<const double> scores) const {
  double doubt = 0.0;  // of the n best together: n - sum of confidences
  for (std::size_t n = 0; n < order_.size(); ++n) {
    const double own_doubt = 1.0 - scores[order_[n]];
    doubt += own_doubt;
    if (!(1.0 - doubt - own_doubt > *config_.frechet)) return std::max<std::size_t>(n, 1);
  }
  return order_.size();
}

// EB-Sampler (arXiv 2505.24857): the joint's dependence is at most the sum of the entropies but the
// largest, which never sinks as positions are added.
std::size_t UnmaskPolicy::count_by_entropy(std::span<const double> entropies) const {
  double sum = 0.0;
  double largest = 0.0;
  for (std::size_t n = 0; n < order_.size(); ++n) {
    const double entropy = entropies[order_[n]];
    sum += entropy;
    largest = std::max(largest, entropy);
    if (n > 0 && sum - largest > *config_.entropy_bound) return n;
  }
  return order_.size();
}

std::size_t UnmaskPolicy::count_by_threshold(std::span<const double> scores,
                                             double masked_fraction) const {
  double threshold = *config_.threshold;
  threshold *= 1.0 - config_.threshold_decay * (1.0 - masked_fraction);  // arXiv 2601.17917
  return static_cast<std::size_t>(std::count_if(scores.begin(), scores.end(), [&](double score) {
    return threshold_inclusive_ ? score >= threshold : score > threshold;
  }));
}

std::span<const std::size_t> UnmaskPolicy::choose(const Candidates& candidates, std::int64_t quota,
                                                  double rate, double masked_fraction) {
  const std::span<const double> scores = candidates.scores;
  order_.resize(scores.size());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  if (scores.empty()) return order_;
  if (config_.remasking == Remasking::origin) {
    std::erase_if(order_, [&](std::size_t i) { return rate < 1.0 && scores[i] >= rate; });
    return order_;
  }
  auto count = static_cast<std::size_t>(std::max<std::int64_t>(quota, 1));
  const bool by_rank = config_.factor || config_.frechet || config_.entropy_bound;
  if (by_rank) rank(scores);
  if (config_.factor) {
    count = count_by_factor(scores);
  } else if (config_.frechet) {
    count = count_by_frechet(scores);
  } else if (config_.entropy_bound) {
    count = count_by_entropy(candidates.entropies);
  } else if (config_.threshold) {
    const std::size_t least = config_.steps_per_block ? count : 1;
    count = std::max(count_by_threshold(scores, masked_fraction), least);
  }
  if (count < order_.size()) {
    if (!by_rank) rank(scores);
    order_.resize(count);
  }
  std::sort(order_.begin(), order_.end());
  return order_;
}

}  // namespace fastdllm
