#include "cache/block_cache.hpp"

#include <algorithm>
#include <cstddef>

namespace fastdllm {

BlockCache::BlockCache(Session& session, const PackageInfo& package, std::int64_t batch,
                       std::uint64_t& clock)
    : session_(&session),
      type_(package.cache_type),
      num_tensors_(2 * package.num_layers),
      num_kv_heads_(package.num_kv_heads),
      head_dim_(package.head_dim),
      batch_(batch),
      nothing_(session.allocate_cache(0)),
      clock_(&clock),
      version_(++clock) {}

void BlockCache::refresh(std::int64_t capacity, std::int64_t length, std::int64_t visible) {
  Store& store = stores_[1 - committed_];
  if (length > store.capacity) {
    store = {};  // the old rows are gone anyway: never hold both
    store.memory = session_->allocate_cache(
        static_cast<std::size_t>(num_tensors_ * tensor_bytes(std::max(capacity, length))));
    store.capacity = std::max(capacity, length);
  }
  store.length = length;
  store.visible = visible;
  version_ = ++*clock_;
}

void BlockCache::drop_refreshed() noexcept {
  Store& store = stores_[1 - committed_];
  store.length = store.visible = 0;
}

void BlockCache::commit(std::span<const std::int32_t> ids) {
  committed_ids_.assign(ids.begin(), ids.end());
  committed_ = 1 - committed_;
  drop_refreshed();
  version_ = ++*clock_;
}

void BlockCache::drop_committed(std::int64_t block_length) noexcept {
  Store& store = stores_[committed_];
  store.length = store.visible = 0;
  committed_ids_.clear();
  committed_block_length_ = block_length;
}

std::int64_t BlockCache::reusable_rows(std::span<const std::int32_t> ids,
                                       std::int64_t block_length) const noexcept {
  if (block_length != committed_block_length_) return 0;
  const auto differing =
      std::mismatch(committed_ids_.begin(), committed_ids_.end(), ids.begin(), ids.end()).first;
  return (differing - committed_ids_.begin()) / block_length * block_length;
}

std::int64_t BlockCache::length(Past past) const noexcept {
  if (past == Past::none) return 0;
  return stores_[past == Past::committed ? committed_ : 1 - committed_].length;
}

std::int64_t BlockCache::visible(Past past) const noexcept {
  if (past == Past::none) return 0;
  return stores_[past == Past::committed ? committed_ : 1 - committed_].visible;
}

TensorView BlockCache::view(Past past, std::int64_t tensor) noexcept {
  const std::int64_t rows = length(past);
  if (rows == 0) return {type_, Shape{batch_, num_kv_heads_, 0, head_dim_}, nothing_->data()};
  Store& store = stores_[past == Past::committed ? committed_ : 1 - committed_];
  auto* base = static_cast<std::byte*>(store.memory->data());
  return {type_, Shape{batch_, num_kv_heads_, rows, head_dim_},
          base + tensor * tensor_bytes(store.capacity)};
}

std::int64_t BlockCache::tensor_bytes(std::int64_t capacity) const noexcept {
  return aligned_bytes(batch_ * num_kv_heads_ * capacity * head_dim_ *
                       static_cast<std::int64_t>(size_of(type_)));
}

std::int64_t BlockCache::bytes_with(std::int64_t rows, bool committed) const noexcept {
  std::int64_t total = 0;
  for (std::size_t i = 0; i < stores_.size(); ++i) {
    const bool written = committed || i != committed_;
    total += tensor_bytes(std::max(stores_[i].capacity, written ? rows : 0));
  }
  return num_tensors_ * total;
}

std::int64_t BlockCache::bytes() const noexcept {
  std::int64_t total = 0;
  for (const Store& store : stores_) {
    if (store.memory) total += num_tensors_ * tensor_bytes(store.capacity);
  }
  return total;
}

}  // namespace fastdllm
