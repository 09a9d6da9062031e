#include "loop/token_editing.hpp"

#include <algorithm>

namespace fastdllm {

bool TokenEditing::takes_post_step() noexcept {
  return is_on() && ++post_steps_ <= config_.max_post_steps;
}

std::int64_t TokenEditing::add_edits(const Canvas& canvas, std::span<const std::int64_t> positions,
                                     const Proposals& proposals,
                                     std::vector<std::size_t>& writes) const {
  if (!is_on()) return 0;
  const std::size_t fills = writes.size();
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const std::int32_t present = canvas.ids()[static_cast<std::size_t>(positions[i])];
    if (!canvas.is_masked(positions[i]) && proposals.token_ids[i] != present &&
        proposals.confidences[i] > *config_.editing_threshold) {
      writes.push_back(i);
    }
  }
  std::sort(writes.begin(), writes.end());
  return static_cast<std::int64_t>(writes.size() - fills);
}

bool TokenEditing::settled(bool was_filled, std::int64_t edits) const noexcept {
  return !is_on() || (was_filled && edits == 0) || post_steps_ >= config_.max_post_steps;
}

}  // namespace fastdllm
