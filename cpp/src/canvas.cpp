#include "canvas.hpp"

namespace fastdllm {

Canvas::Canvas(std::span<const std::int32_t> prompt, std::int64_t new_tokens,
               std::int64_t block_length, std::int32_t mask_token_id)
    : ids_(prompt.begin(), prompt.end()),
      prompt_length_(std::ssize(prompt)),
      block_length_(std::min(block_length, new_tokens)),
      mask_token_id_(mask_token_id) {
  ids_.resize(ids_.size() + static_cast<std::size_t>(new_tokens), mask_token_id);
  masked_.reserve(static_cast<std::size_t>(block_length_));
}

std::int64_t Canvas::num_blocks() const noexcept {
  return (length() - prompt_length_ + block_length_ - 1) / block_length_;
}

BlockRange Canvas::block(std::int64_t index) const noexcept {
  const std::int64_t start = prompt_length_ + index * block_length_;
  return {start, std::min(start + block_length_, length())};
}

std::span<const std::int64_t> Canvas::masked(const BlockRange& block) {
  masked_.clear();
  for (std::int64_t i = block.start; i < block.end; ++i) {
    if (ids_[static_cast<std::size_t>(i)] == mask_token_id_) masked_.push_back(i);
  }
  return masked_;
}

std::int64_t Canvas::stopped_length(std::span<const std::int32_t> stop_ids) const noexcept {
  const std::span<const std::int32_t> ids = new_ids();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == mask_token_id_) return 0;
    if (std::find(stop_ids.begin(), stop_ids.end(), ids[i]) != stop_ids.end()) {
      return static_cast<std::int64_t>(i) + 1;
    }
  }
  return 0;
}

std::int64_t Canvas::filled_length() const noexcept {
  const std::span<const std::int32_t> ids = new_ids();
  return std::find(ids.begin(), ids.end(), mask_token_id_) - ids.begin();
}

}  // namespace fastdllm
