#include "cache/canvas.hpp"

#include <algorithm>

namespace fastdllm {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t step) noexcept {
  return (value + step - 1) / step * step;
}

}  // namespace

BlockLayout layout_of(const PackageInfo& package, const GenerationConfig& config) {
  constexpr std::int64_t usual = 32;
  BlockLayout layout;
  layout.block_length = config.block_length.value_or(package.block_length.value_or(usual));
  layout.sub_block_length =
      config.sub_block_length.value_or(package.sub_block_length.value_or(layout.block_length));
  layout.absolute = package.attention == AttentionKind::block_causal;
  return layout;
}

Canvas::Canvas(std::span<const std::int32_t> prompt, std::int64_t new_tokens,
               const BlockLayout& layout, std::int32_t mask_token_id)
    : ids_(prompt.begin(), prompt.end()),
      prompt_length_(std::ssize(prompt)),
      answer_start_(prompt_length_),
      answer_length_(new_tokens),
      layout_(layout),
      mask_token_id_(mask_token_id) {
  ids_.resize(static_cast<std::size_t>(prompt_length_ + new_tokens), mask_token_id);
  lay_out();
}

Canvas::Canvas(std::span<const std::int32_t> ids, const BlockLayout& layout,
               std::int32_t mask_token_id)
    : ids_(ids.begin(), ids.end()),
      prompt_length_(std::find(ids.begin(), ids.end(), mask_token_id) - ids.begin()),
      answer_start_(0),
      answer_length_(std::ssize(ids)),
      layout_(layout),
      mask_token_id_(mask_token_id) {
  lay_out();
}

void Canvas::lay_out() {
  first_block_ = prompt_length_;
  if (layout_.absolute) {
    first_block_ = prompt_length_ / layout_.block_length * layout_.block_length;
    ids_.resize(static_cast<std::size_t>(round_up(length(), layout_.block_length)), mask_token_id_);
  } else {
    layout_.block_length = std::min(layout_.block_length, length() - prompt_length_);
  }
  layout_.sub_block_length = std::min(layout_.sub_block_length, layout_.block_length);
  given_.resize(ids_.size());
  std::transform(ids_.begin(), ids_.end(), given_.begin(),
                 [&](std::int32_t id) { return id == mask_token_id_ ? 0 : 1; });
  positions_.reserve(static_cast<std::size_t>(layout_.block_length));
}

std::int64_t Canvas::num_blocks() const noexcept {
  return (length() - first_block_ + layout_.block_length - 1) / layout_.block_length;
}

BlockRange Canvas::block(std::int64_t index) const noexcept {
  const std::int64_t start = first_block_ + index * layout_.block_length;
  return {start, std::min(start + layout_.block_length, length())};
}

std::int64_t Canvas::sub_blocks_per_block() const noexcept {
  return (layout_.block_length + layout_.sub_block_length - 1) / layout_.sub_block_length;
}

BlockRange Canvas::sub_block(const BlockRange& block, std::int64_t index) const noexcept {
  const std::int64_t start = block.start + index * layout_.sub_block_length;
  return {std::min(start, block.end), std::min(start + layout_.sub_block_length, block.end)};
}

std::span<const std::int64_t> Canvas::masked(const BlockRange& range) {
  positions_.clear();
  for (std::int64_t i = range.start; i < range.end; ++i) {
    if (is_masked(i)) positions_.push_back(i);
  }
  return positions_;
}

std::int64_t Canvas::count_masked(const BlockRange& range) const noexcept {
  return std::count(ids_.begin() + range.start, ids_.begin() + range.end, mask_token_id_);
}

std::span<const std::int64_t> Canvas::generated(const BlockRange& range) {
  positions_.clear();
  for (std::int64_t i = range.start; i < range.end; ++i) {
    if (given_[static_cast<std::size_t>(i)] == 0) positions_.push_back(i);
  }
  return positions_;
}

std::int64_t Canvas::stopped_length(std::span<const std::int32_t> stop_ids) const noexcept {
  const std::span<const std::int32_t> ids = answer();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == mask_token_id_) return 0;
    if (std::find(stop_ids.begin(), stop_ids.end(), ids[i]) != stop_ids.end()) {
      return static_cast<std::int64_t>(i) + 1;
    }
  }
  return 0;
}

std::int64_t Canvas::filled_length() const noexcept {
  const std::span<const std::int32_t> ids = answer();
  return std::find(ids.begin(), ids.end(), mask_token_id_) - ids.begin();
}

}  // namespace fastdllm
