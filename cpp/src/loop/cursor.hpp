// The position of a request on its canvas: the block, the range of it that is decoded, and whether
// its first token is decoded before the rest.
#pragma once

#include <cstdint>
#include <span>

#include "cache/canvas.hpp"
#include "fastdllm/generation.hpp"
#include "fastdllm/package.hpp"
#include "loop/answer.hpp"

namespace fastdllm {

/// Goes over the canvas block by block, in a block sub-block by sub-block. With a deferred window a
/// block is the window that begins at the left-most masked position (arXiv 2601.02076).
class Cursor {
 public:
  /// All references are borrowed.
  Cursor(Canvas& canvas, const PackageInfo& package, const GenerationConfig& config);

  /// Goes to a block; false when nothing is left to be decoded.
  [[nodiscard]] bool enter_block(std::int64_t number);
  /// Goes to the next range of the block; false when the present one is the last.
  [[nodiscard]] bool enter_next_range();
  /// A pass over the range is planned: the range is not fresh any more.
  void leave_fresh() noexcept { fresh_ = false; }

  [[nodiscard]] bool is_deferred() const noexcept { return config_.deferred_window.has_value(); }
  [[nodiscard]] std::int64_t number() const noexcept { return number_; }  ///< of the block
  [[nodiscard]] const BlockRange& block() const noexcept { return block_; }
  /// The range that is decoded now: the sub-block, else the block.
  [[nodiscard]] const BlockRange& range() const noexcept { return range_; }
  /// No pass over the range is planned yet.
  [[nodiscard]] bool is_fresh() const noexcept { return fresh_; }
  /// Masked positions of the block when it was entered.
  [[nodiscard]] std::int64_t masked_at_start() const noexcept { return masked_at_start_; }
  /// The pass that commits the rows before the block gives its first token (arXiv 2509.26328).
  [[nodiscard]] bool seeds() const noexcept { return seeds_; }
  /// Only the block's first pass feeds the row that predicts its first position; that pass commits
  /// this one position and no other.
  [[nodiscard]] bool first_alone() const noexcept { return first_alone_; }
  /// Positions that the passes of the block share, see StepSchedule.
  [[nodiscard]] std::int64_t shared() const noexcept;

  /// Masked positions that a pass may commit. Of a deferred window block_length of them at most,
  /// not past a token that ends the answer. Borrowed, see Canvas::masked().
  [[nodiscard]] std::span<const std::int64_t> eligible(const Answer& answer);

 private:
  void enter_range(std::int64_t index);
  [[nodiscard]] BlockRange deferred_window();

  Canvas& canvas_;
  const PackageInfo& package_;
  const GenerationConfig& config_;
  bool refresh_predicts_first_;  // a block's first token, and no other pass's rows do
  std::int64_t number_ = 0;
  BlockRange block_, range_;
  std::int64_t range_index_ = 0;
  std::int64_t masked_at_start_ = 0;
  bool seeds_ = false, first_alone_ = false, fresh_ = true;
};

}  // namespace fastdllm
