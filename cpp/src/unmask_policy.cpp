#include "unmask_policy.hpp"

#include <algorithm>
#include <numeric>

namespace fastdllm {

StepSchedule::StepSchedule(const GenerationConfig& config, std::int64_t num_blocks)
    : steps_(config.steps.value_or(0)), num_blocks_(num_blocks) {}

std::int64_t StepSchedule::steps_of(std::int64_t block, std::int64_t block_masks) const noexcept {
  if (steps_ == 0) return block_masks;
  const std::int64_t share = steps_ / num_blocks_ + (block < steps_ % num_blocks_ ? 1 : 0);
  return std::max<std::int64_t>(share, 1);
}

std::int64_t StepSchedule::quota(std::int64_t block, std::int64_t index,
                                 std::int64_t block_masks) const noexcept {
  const std::int64_t steps = steps_of(block, block_masks);
  return std::max<std::int64_t>(block_masks / steps + (index < block_masks % steps ? 1 : 0), 1);
}

// Most confident first; stable, so that equal confidences keep the order of their positions.
void UnmaskPolicy::rank(std::span<const double> confidences) {
  std::sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
    return confidences[a] != confidences[b] ? confidences[a] > confidences[b] : a < b;
  });
}

// Fast-dLLM's factor rule (arXiv 2505.22618, section 3.3, as its code has it): the n-th most
// confident needs 1 - factor / (n + 1); when only the very last one fails, all are accepted.
std::size_t UnmaskPolicy::count_by_factor(std::span<const double> confidences) const {
  const std::size_t count = order_.size();
  for (std::size_t n = 2; n < count; ++n) {
    const double limit = 1.0 - *config_.factor / static_cast<double>(n + 1);
    if (confidences[order_[n - 1]] < limit) return n - 1;
  }
  return count;
}

std::span<const std::size_t> UnmaskPolicy::choose(std::span<const double> confidences,
                                                  std::int64_t quota) {
  order_.resize(confidences.size());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  if (confidences.empty()) return order_;

  if (config_.factor) {
    rank(confidences);
    order_.resize(count_by_factor(confidences));
  } else if (config_.threshold) {
    const auto best = static_cast<std::size_t>(
        std::max_element(confidences.begin(), confidences.end()) - confidences.begin());
    std::erase_if(order_,
                  [&](std::size_t i) { return i != best && confidences[i] < *config_.threshold; });
  } else if (quota < static_cast<std::int64_t>(order_.size())) {
    rank(confidences);
    order_.resize(static_cast<std::size_t>(quota));
  }
  std::sort(order_.begin(), order_.end());
  return order_;
}

}  // namespace fastdllm
