#include "block_cache.hpp"

#include <algorithm>
#include <cstddef>

namespace fastdllm {
namespace {

constexpr std::int64_t alignment = 64;

}  // namespace

BlockCache::BlockCache(Session& session, const PackageInfo& package)
    : session_(&session),
      type_(package.cache_type),
      num_tensors_(2 * package.num_layers),
      num_kv_heads_(package.num_kv_heads),
      head_dim_(package.head_dim),
      nothing_(session.allocate_cache(0)) {}

void BlockCache::set_batch(std::int64_t batch) {
  if (batch == batch_) return;
  batch_ = batch;
  for (Store& store : stores_) store = {};
}

void BlockCache::refresh(std::int64_t capacity, std::int64_t length) {
  Store& store = stores_[1 - committed_];
  if (length > store.capacity) {
    store = {};  // the old rows are gone anyway: never hold both
    store.memory = session_->allocate_cache(
        static_cast<std::size_t>(num_tensors_ * tensor_bytes(std::max(capacity, length))));
    store.capacity = std::max(capacity, length);
  }
  store.length = length;
}

void BlockCache::commit() noexcept {
  stores_[committed_].length = 0;
  committed_ = 1 - committed_;
}

TensorView BlockCache::view(std::size_t index, std::int64_t tensor) {
  Store& store = stores_[index];
  if (store.length == 0) return nothing();
  auto* base = static_cast<std::byte*>(store.memory->data());
  return {type_, Shape{batch_, num_kv_heads_, store.length, head_dim_},
          base + tensor * tensor_bytes(store.capacity)};
}

TensorView BlockCache::nothing() noexcept {
  return {type_, Shape{batch_, num_kv_heads_, 0, head_dim_}, nothing_->data()};
}

std::int64_t BlockCache::tensor_bytes(std::int64_t capacity) const noexcept {
  const std::int64_t size =
      batch_ * num_kv_heads_ * capacity * head_dim_ * static_cast<std::int64_t>(size_of(type_));
  return (size + alignment - 1) / alignment * alignment;
}

std::int64_t BlockCache::bytes() const noexcept {
  std::int64_t total = 0;
  for (const Store& store : stores_) {
    if (store.memory) total += num_tensors_ * tensor_bytes(store.capacity);
  }
  return total;
}

}  // namespace fastdllm
