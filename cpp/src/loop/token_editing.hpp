// Token editing: a pass overwrites tokens of its range if another one has a high confidence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/canvas.hpp"
#include "fastdllm/generation.hpp"
#include "rules/sampler.hpp"

namespace fastdllm {

/// Without an editing_threshold it asks for nothing and a range is settled as soon as it is filled.
class TokenEditing {
 public:
  /// config is borrowed.
  explicit TokenEditing(const GenerationConfig& config) : config_(config) {}

  [[nodiscard]] bool is_on() const noexcept { return config_.editing_threshold.has_value(); }
  void enter_range() noexcept { post_steps_ = 0; }
  /// Whether a range without masks has one more pass, which only edits. Counts it.
  [[nodiscard]] bool takes_post_step() noexcept;
  /// Adds to `writes` the indices of the filled positions that are overwritten, in order. Returns
  /// their number. proposals: one per position.
  std::int64_t add_edits(const Canvas& canvas, std::span<const std::int64_t> positions,
                         const Proposals& proposals, std::vector<std::size_t>& writes) const;
  /// Whether the range needs no further pass when it is filled. was_filled: before the pass.
  [[nodiscard]] bool settled(bool was_filled, std::int64_t edits) const noexcept;

 private:
  const GenerationConfig& config_;
  std::int64_t post_steps_ = 0;  // passes that only edited the range
};

}  // namespace fastdllm
