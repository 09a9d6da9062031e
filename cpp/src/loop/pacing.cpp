#include "loop/pacing.hpp"

#include <algorithm>

namespace fastdllm {

Pacing::Pacing(const GenerationConfig& config, std::int64_t num_blocks)
    : config_(config), schedule_(config, num_blocks, false) {}

void Pacing::enter_block(const Cursor& cursor, std::int64_t rows_behind) noexcept {
  number_ = cursor.number();
  shared_ = cursor.shared();
  index_ = 0;
  first_alone_ = cursor.first_alone();
  masked_at_start_ = cursor.masked_at_start();
  rows_behind_ = rows_behind;
  schedule_.set_first_token(first_alone_);
}

Pace Pacing::next(std::int64_t of_block, std::int64_t eligible) noexcept {
  const bool by_schedule = goes_by_schedule(config_);
  const bool origin = config_.remasking == Remasking::origin;
  Pace pace;
  pace.quota = schedule_.quota(number_, index_, shared_, of_block);
  while (pace.quota == 0 && eligible > 0 && by_schedule && !origin) {
    pace.quota = schedule_.quota(number_, ++index_, shared_, of_block);
  }
  pace.first_alone = first_alone_ && index_ == 0;
  if (!pace.first_alone) {
    pace.rate = schedule_.rate(number_, index_, shared_, pace.quota, eligible);
  }
  const std::int64_t to_fill = std::max<std::int64_t>(masked_at_start_ + rows_behind_, 1);
  pace.masked_fraction =
      static_cast<double>(of_block + rows_behind_) / static_cast<double>(to_fill);
  pace.last = by_schedule && !pace.first_alone && pace.quota >= eligible;
  return pace;
}

void Pacing::count_pass(std::int64_t commits) noexcept {
  ++index_;
  ++passes_since_refresh_;
  commits_since_refresh_ += commits;
}

bool Pacing::wants_refresh() const noexcept {
  return (config_.refresh_interval && passes_since_refresh_ >= *config_.refresh_interval) ||
         (config_.refresh_tokens && commits_since_refresh_ >= *config_.refresh_tokens);
}

}  // namespace fastdllm
