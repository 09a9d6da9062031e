// The token row a request works on: the prompt, then the new tokens, masked until committed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace fastdllm {

/// A half-open range of absolute canvas positions.
struct BlockRange {
  std::int64_t start = 0;
  std::int64_t end = 0;
  [[nodiscard]] std::int64_t length() const noexcept { return end - start; }
};

class Canvas {
 public:
  Canvas(std::span<const std::int32_t> prompt, std::int64_t new_tokens, std::int64_t block_length,
         std::int32_t mask_token_id);

  [[nodiscard]] std::int64_t length() const noexcept { return std::ssize(ids_); }
  [[nodiscard]] std::int64_t prompt_length() const noexcept { return prompt_length_; }
  [[nodiscard]] std::span<const std::int32_t> ids() const noexcept { return ids_; }

  [[nodiscard]] std::int64_t num_blocks() const noexcept;
  [[nodiscard]] BlockRange block(std::int64_t index) const noexcept;

  /// Masked positions of the block, ascending, absolute. Borrowed, valid until the next call.
  [[nodiscard]] std::span<const std::int64_t> masked(const BlockRange& block);

  /// Fills masked positions; the ids are no mask tokens.
  void commit(std::int64_t position, std::int32_t token_id) noexcept {
    ids_[static_cast<std::size_t>(position)] = token_id;
  }

  /// Length of the new tokens up to and with the first of `stop_ids` when every position before it
  /// is filled, else 0.
  [[nodiscard]] std::int64_t stopped_length(std::span<const std::int32_t> stop_ids) const noexcept;
  /// Length of the new tokens before the first masked one.
  [[nodiscard]] std::int64_t filled_length() const noexcept;
  [[nodiscard]] std::span<const std::int32_t> new_ids() const noexcept {
    return std::span(ids_).subspan(static_cast<std::size_t>(prompt_length_));
  }

 private:
  std::vector<std::int32_t> ids_;
  std::vector<std::int64_t> masked_;
  std::int64_t prompt_length_;
  std::int64_t block_length_;
  std::int32_t mask_token_id_;
};

}  // namespace fastdllm
