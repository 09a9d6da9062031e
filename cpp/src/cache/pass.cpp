#include "cache/pass.hpp"

#include <algorithm>
#include <bit>

namespace fastdllm {
namespace {

// A pass over many finished rows is cut so that its activations do not grow with the context.
constexpr std::int64_t max_commit_rows = 512;

}  // namespace

// Never more than a block: a refresh keeps rows of the block itself, which steps do not look at.
std::int64_t bucket_of(std::int64_t block_length) noexcept {
  if (block_length < 8) return 1;
  return static_cast<std::int64_t>(
      std::bit_floor(static_cast<std::uint64_t>(std::min<std::int64_t>(block_length, 32))));
}

PassPlanner::PassPlanner(CacheMode mode, const PackageInfo& package, const Canvas& canvas,
                         std::optional<std::int64_t> suffix_window)
    : mode_(mode),
      block_causal_(package.attention == AttentionKind::block_causal),
      shift_(package.logits_shift),
      canvas_length_(canvas.length()),
      block_length_(canvas.block(0).length()),
      last_block_start_(canvas.block(canvas.num_blocks() - 1).start),
      has_sub_blocks_(canvas.sub_blocks_per_block() > 1),
      suffix_window_(suffix_window),
      bucket_(bucket_of(block_length_)) {
  pass_.rows.reserve(static_cast<std::size_t>(canvas_length_));
  pass_.logit_rows.reserve(static_cast<std::size_t>(block_length_));
  row_of_.resize(static_cast<std::size_t>(canvas_length_));
}

bool PassPlanner::keeps_sub_blocks() const noexcept {
  return mode_ == CacheMode::dual && has_sub_blocks_;
}

std::int64_t PassPlanner::max_cached_rows() const noexcept {
  if (mode_ == CacheMode::none) return 0;
  return block_causal_ ? canvas_length_ : std::min(last_block_start_ + bucket_, canvas_length_);
}

// Bidirectional: the last block's refresh feeds everything.
std::int64_t PassPlanner::max_fed_rows() const noexcept {
  if (!block_causal_ || mode_ == CacheMode::none) return canvas_length_;
  return std::min(std::max(max_commit_rows, block_length_), canvas_length_);
}

std::int64_t PassPlanner::suffix_rows_of_step(const BlockRange& block) const noexcept {
  if (block_causal_ || mode_ == CacheMode::dual) return 0;
  const std::int64_t rest = canvas_length_ - block.end;
  return suffix_window_ && *suffix_window_ < rest ? *suffix_window_ + 1 : rest;
}

void PassPlanner::feed(std::int64_t start, std::int64_t end) {
  for (std::int64_t position = start; position < end; ++position) {
    row_of_[static_cast<std::size_t>(position)] = std::ssize(pass_.rows);
    pass_.rows.push_back(position);
  }
}

// What a pass feeds of the masked rest behind the block.
void PassPlanner::feed_suffix(const BlockRange& block) {
  const std::int64_t rest = canvas_length_ - block.end;
  const std::int64_t window = std::min(suffix_window_.value_or(rest), rest);
  feed(block.end, block.end + window);
  if (window < rest) feed(canvas_length_ - 1, canvas_length_);
}

// Hands back the leading `rows`, for later passes to see, and unseen ones up to a round number.
void PassPlanner::keep(std::int64_t rows) {
  const std::int64_t past = pass_.past == Past::committed ? committed_ : 0;
  const std::int64_t rounded = (rows + bucket_ - 1) / bucket_ * bucket_;
  pass_.visible_length = rows;
  pass_.present_length = std::min(rounded, past + std::ssize(pass_.rows));
}

// With shifted logits the row before a position predicts it; nothing stands before the first.
void PassPlanner::want(std::span<const std::int64_t> positions) {
  pass_.logit_rows.clear();
  for (const std::int64_t position : positions) {
    const std::int64_t row = std::max<std::int64_t>(position - shift_, 0);
    pass_.logit_rows.push_back(row_of_[static_cast<std::size_t>(row)]);
  }
}

const Pass& PassPlanner::plan(const BlockRange& block, const BlockRange& range,
                              std::span<const std::int64_t> wanted, bool refresh, bool last) {
  if (refresh || stepped_start_ != range.start) {  // the rows of a range's steps never change
    stepped_start_ = -1;
    pass_.rows.clear();
    pass_.past = Past::none;
    pass_.present_length = pass_.visible_length = 0;
    pass_.commit = false;
    pass_.causal_block_length = 0;
    if (block_causal_) {
      plan_block_causal(block, range, refresh);
    } else {
      plan_bidirectional(block, refresh, last);
    }
    if (!pass_.fills_cache()) stepped_start_ = range.start;
  }
  want(wanted);
  return pass_;
}

void PassPlanner::plan_bidirectional(const BlockRange& block, bool refresh, bool last) {
  if (mode_ == CacheMode::none || (refresh && last)) {
    feed(0, block.end);
    feed_suffix(block);
  } else if (!refresh) {
    pass_.past = Past::refreshed;
    feed(block.start, block.end);
    if (mode_ == CacheMode::prefix) feed_suffix(block);
  } else if (mode_ == CacheMode::dual) {
    feed(0, block.start);
    feed_suffix(block);
    const std::int64_t kept = std::ssize(pass_.rows);
    feed(block.start, block.end);
    keep(kept);
  } else {
    feed(0, block.end);
    feed_suffix(block);
    keep(block.start);
  }
}

void PassPlanner::plan_block_causal(const BlockRange& block, const BlockRange& range,
                                    bool refresh) {
  if (mode_ == CacheMode::none) {
    feed(0, block.end);
    pass_.causal_block_length = block_length_;
    return;
  }
  pass_.past = Past::committed;
  if (committed_ < block.start) {  // finished rows go along and are committed
    feed(committed_, block.end);
    pass_.present_length = pass_.visible_length = block.start;
    pass_.commit = true;
    pass_.causal_block_length = block_length_;
    committed_ = block.start;
  } else if (!keeps_sub_blocks()) {
    feed(block.start, block.end);
  } else if (refresh) {
    feed(block.start, range.start);
    feed(range.end, block.end);
    const std::int64_t kept = committed_ + std::ssize(pass_.rows);
    feed(range.start, range.end);
    keep(kept);
  } else {
    pass_.past = Past::refreshed;
    feed(range.start, range.end);
  }
}

std::int64_t PassPlanner::largest_commit() const noexcept {
  const std::int64_t attended = committed_ + max_commit_rows;
  const std::int64_t rows = std::min(max_commit_rows, max_attention_pairs / attended);
  return std::max(rows / block_length_, std::int64_t{1}) * block_length_;
}

const Pass* PassPlanner::plan_commit(const BlockRange& block, bool for_seed) {
  const bool naive = mode_ == CacheMode::none;
  const std::int64_t start = naive ? 0 : committed_;
  const std::int64_t pending = block.start - start;
  if (naive && !for_seed) return nullptr;
  const bool separate = for_seed || keeps_sub_blocks();
  if (pending == 0 || (!separate && pending + block_length_ <= largest_commit())) return nullptr;

  const std::int64_t count = naive ? pending : std::min(pending, largest_commit());
  stepped_start_ = -1;
  pass_.rows.clear();
  feed(start, start + count);
  pass_.logit_rows.assign(1, count - 1);
  pass_.past = naive ? Past::none : Past::committed;
  pass_.present_length = pass_.visible_length = naive ? 0 : start + count;
  pass_.commit = !naive;
  pass_.causal_block_length = count > block_length_ ? block_length_ : 0;
  if (!naive) committed_ = start + count;
  return &pass_;
}

const Pass& PassPlanner::plan_cut(std::int64_t length) {
  stepped_start_ = -1;
  pass_.rows.clear();
  feed(length, length + 1);
  pass_.logit_rows.assign(1, 0);
  pass_.past = Past::committed;
  pass_.present_length = pass_.visible_length = length;
  pass_.commit = true;
  pass_.causal_block_length = 0;
  committed_ = length;
  return pass_;
}

}  // namespace fastdllm
