// The tokens of a request: given ones, and masked ones until they are committed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fastdllm/generation.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm {

/// A half-open range of absolute canvas positions.
struct BlockRange {
  std::int64_t start = 0;
  std::int64_t end = 0;
  [[nodiscard]] std::int64_t length() const noexcept { return end - start; }
};

/// How the canvas is cut into blocks, and blocks into sub-blocks.
struct BlockLayout {
  std::int64_t block_length = 1;
  std::int64_t sub_block_length = 1;  ///< <= block_length
  /// True: blocks lie at absolute multiples of block_length; the first may begin with prompt
  /// tokens and the last reaches beyond the new tokens. False: they count from the end of the
  /// prompt and the last may be short.
  bool absolute = false;
};

/// The layout that a request has: its options, else the package's, else blocks of 32.
[[nodiscard]] BlockLayout layout_of(const PackageInfo& package, const GenerationConfig& config);

class Canvas {
 public:
  /// A prompt, then new tokens.
  Canvas(std::span<const std::int32_t> prompt, std::int64_t new_tokens, const BlockLayout& layout,
         std::int32_t mask_token_id);
  /// Given tokens with masked gaps, at least one, between them (infilling). The whole canvas is the
  /// answer; blocks count from the first gap.
  Canvas(std::span<const std::int32_t> ids, const BlockLayout& layout, std::int32_t mask_token_id);

  [[nodiscard]] std::int64_t length() const noexcept { return std::ssize(ids_); }
  [[nodiscard]] std::span<const std::int32_t> ids() const noexcept { return ids_; }
  /// Length of the tokens before the first masked one.
  [[nodiscard]] std::int64_t prompt_length() const noexcept { return prompt_length_; }
  /// Per position whether its token was given: 1, else 0.
  [[nodiscard]] std::span<const std::uint8_t> given() const noexcept { return given_; }
  /// Where the answer starts: behind the prompt; infilling: at 0.
  [[nodiscard]] std::int64_t answer_start() const noexcept { return answer_start_; }
  /// The answer: the new tokens asked for; infilling: everything.
  [[nodiscard]] std::span<const std::int32_t> answer() const noexcept {
    return std::span(ids_).subspan(static_cast<std::size_t>(answer_start_),
                                   static_cast<std::size_t>(answer_length_));
  }

  [[nodiscard]] std::int64_t num_blocks() const noexcept;
  [[nodiscard]] BlockRange block(std::int64_t index) const noexcept;
  [[nodiscard]] std::int64_t sub_blocks_per_block() const noexcept;
  [[nodiscard]] BlockRange sub_block(const BlockRange& block, std::int64_t index) const noexcept;

  [[nodiscard]] bool is_masked(std::int64_t position) const noexcept {
    return ids_[static_cast<std::size_t>(position)] == mask_token_id_;
  }
  /// Masked positions of the range, ascending, absolute. Borrowed, valid until the next call.
  [[nodiscard]] std::span<const std::int64_t> masked(const BlockRange& range);
  [[nodiscard]] std::int64_t count_masked(const BlockRange& range) const noexcept;
  /// Positions of the range that were not given, likewise.
  [[nodiscard]] std::span<const std::int64_t> generated(const BlockRange& range);

  /// Fills or overwrites a position; the id is no mask token.
  void commit(std::int64_t position, std::int32_t token_id) noexcept {
    ids_[static_cast<std::size_t>(position)] = token_id;
  }

  /// Length of the answer up to and with the first of `stop_ids` when every position before it is
  /// filled, else 0.
  [[nodiscard]] std::int64_t stopped_length(std::span<const std::int32_t> stop_ids) const noexcept;
  /// Length of the answer before its first masked position.
  [[nodiscard]] std::int64_t filled_length() const noexcept;

 private:
  void lay_out();

  std::vector<std::int32_t> ids_;
  std::vector<std::uint8_t> given_;
  std::vector<std::int64_t> positions_;
  std::int64_t prompt_length_;
  std::int64_t answer_start_;
  std::int64_t answer_length_;
  BlockLayout layout_;
  std::int64_t first_block_ = 0;  // where block 0 starts
  std::int32_t mask_token_id_;
};

}  // namespace fastdllm
