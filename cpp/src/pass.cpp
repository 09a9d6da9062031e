#include "pass.hpp"

namespace fastdllm {

PassPlanner::PassPlanner(CacheMode mode, std::int64_t canvas_length)
    : mode_(mode), canvas_length_(canvas_length) {
  pass_.rows.reserve(static_cast<std::size_t>(canvas_length));
  pass_.logit_rows.reserve(static_cast<std::size_t>(canvas_length));
}

const Pass& PassPlanner::plan(const BlockRange& block, std::span<const std::int64_t> masked,
                              bool first, bool last) {
  if (first || mode_ == CacheMode::none) {
    plan_refresh(block, last);
  } else if (!pass_.reuse_cache) {
    plan_step(block);  // the rows of a block's steps never change
  }
  pass_.logit_rows.clear();
  for (const std::int64_t position : masked) {
    pass_.logit_rows.push_back(block_row_ + position - block.start);
  }
  return pass_;
}

void PassPlanner::feed(std::int64_t start, std::int64_t end) {
  for (std::int64_t position = start; position < end; ++position) pass_.rows.push_back(position);
}

void PassPlanner::plan_refresh(const BlockRange& block, bool last) {
  pass_.rows.clear();
  pass_.reuse_cache = false;
  pass_.present_length = 0;
  block_row_ = block.start;
  if (mode_ == CacheMode::dual && !last) {
    feed(0, block.start);
    feed(block.end, canvas_length_);
    block_row_ = static_cast<std::int64_t>(pass_.rows.size());
    pass_.present_length = block_row_;
    feed(block.start, block.end);
    return;
  }
  feed(0, canvas_length_);
  if (mode_ == CacheMode::prefix && !last) pass_.present_length = block.start;
}

void PassPlanner::plan_step(const BlockRange& block) {
  pass_.rows.clear();
  pass_.reuse_cache = true;
  pass_.present_length = 0;
  block_row_ = 0;
  feed(block.start, mode_ == CacheMode::dual ? block.end : canvas_length_);
}

}  // namespace fastdllm
