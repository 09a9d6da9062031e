// One graph run, described without tensors, and who plans it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "canvas.hpp"
#include "fastdllm/generation.hpp"

namespace fastdllm {

struct Pass {
  /// Absolute canvas positions of the rows fed, in feed order. [T]
  std::vector<std::int64_t> rows;
  /// Indices into `rows` whose predictions are wanted. [N]
  std::vector<std::int64_t> logit_rows;
  /// Leading rows of (cached + fed) whose K/V the pass hands back; they become the cache.
  std::int64_t present_length = 0;
  /// True: the cached rows are attended to, and stay as they are. False: the pass starts from
  /// nothing.
  bool reuse_cache = false;
};

/// Plans a block's passes for a cache mode (Fast-dLLM, arXiv 2505.22618, section 3.2). Attention is
/// bidirectional, so the order of rows is free: a refresh feeds what will be cached first and the
/// block last, and its leading K/V rows are the following steps' cache as they are.
class PassPlanner {
 public:
  PassPlanner(CacheMode mode, std::int64_t canvas_length);

  /// masked: the block's masked positions, ascending, absolute. first: the block's first pass.
  /// last: known to be the block's last pass, so that nothing needs to be cached.
  /// The result is borrowed and valid until the next call; planning a step allocates nothing.
  [[nodiscard]] const Pass& plan(const BlockRange& block, std::span<const std::int64_t> masked,
                                 bool first, bool last);

 private:
  void feed(std::int64_t start, std::int64_t end);
  void plan_refresh(const BlockRange& block, bool last);
  void plan_step(const BlockRange& block);

  CacheMode mode_;
  std::int64_t canvas_length_;
  Pass pass_;
  std::int64_t block_row_ = 0;  // index in rows of the block's first position
};

}  // namespace fastdllm
