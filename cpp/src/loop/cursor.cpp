#include "loop/cursor.hpp"

#include <algorithm>

namespace fastdllm {

Cursor::Cursor(Canvas& canvas, const PackageInfo& package, const GenerationConfig& config)
    : canvas_(canvas),
      package_(package),
      config_(config),
      refresh_predicts_first_(package.logits_shift > 0 && config.cache != CacheMode::none &&
                              package.attention == AttentionKind::bidirectional && !is_deferred()) {
}

bool Cursor::enter_block(std::int64_t number) {
  if (!is_deferred() && number == canvas_.num_blocks()) return false;
  const BlockRange block = is_deferred() ? deferred_window() : canvas_.block(number);
  if (block.length() == 0) return false;
  block_ = block;
  number_ = number;
  masked_at_start_ = canvas_.count_masked(block_);
  const bool first_is_masked = canvas_.is_masked(block_.start);
  seeds_ = package_.seed_token && block_.start > 0 && first_is_masked;
  first_alone_ = refresh_predicts_first_ && first_is_masked;
  enter_range(0);
  return true;
}

bool Cursor::enter_next_range() {
  if (is_deferred() || range_index_ + 1 == canvas_.sub_blocks_per_block()) return false;
  enter_range(range_index_ + 1);
  return true;
}

void Cursor::enter_range(std::int64_t index) {
  range_index_ = index;
  range_ = is_deferred() ? block_ : canvas_.sub_block(block_, index);
  fresh_ = true;
}

// From the left-most masked position on; empty when there is none. The row before a position may be
// what predicts it.
BlockRange Cursor::deferred_window() {
  const std::span<const std::int64_t> masked =
      canvas_.masked({canvas_.prompt_length(), canvas_.length()});
  if (masked.empty()) return {};
  const std::int64_t rest = canvas_.length() - masked[0];
  return {.start = std::max<std::int64_t>(masked[0] - package_.logits_shift, 0),
          .end = masked[0] + std::min(*config_.deferred_window, rest)};
}

std::int64_t Cursor::shared() const noexcept {
  const bool block_causal = package_.attention == AttentionKind::block_causal;
  if (block_causal && config_.steps_per_block) return block_.length();
  return std::max<std::int64_t>(masked_at_start_ - (seeds_ ? 1 : 0), 1);
}

std::span<const std::int64_t> Cursor::eligible(const Answer& answer) {
  const std::span<const std::int64_t> masked = canvas_.masked(range_);
  if (!is_deferred() || masked.empty()) return masked;
  std::int64_t end = range_.end;
  for (std::int64_t i = masked[0]; i < end; ++i) {
    if (answer.stops_at(canvas_.ids()[static_cast<std::size_t>(i)])) end = i;
  }
  const auto reached = std::lower_bound(masked.begin(), masked.end(), end) - masked.begin();
  const auto most = static_cast<std::ptrdiff_t>(canvas_.block(0).length());
  return masked.first(static_cast<std::size_t>(std::min(reached, most)));
}

}  // namespace fastdllm
