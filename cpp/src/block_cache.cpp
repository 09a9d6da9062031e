#include "block_cache.hpp"

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
      head_dim_(package.head_dim) {
  reserve(1, 0);
}

void BlockCache::reserve(std::int64_t batch, std::int64_t capacity) {
  batch_ = batch;
  capacity_ = capacity;
  length_ = 0;
  if (memory_ == nullptr || bytes() > allocated_) {
    memory_.reset();  // the old rows are gone anyway: never hold both
    allocated_ = 0;
    memory_ = session_->allocate_cache(static_cast<std::size_t>(bytes()));
    allocated_ = bytes();
  }
}

TensorView BlockCache::view(std::int64_t tensor, std::int64_t length) noexcept {
  auto* base = static_cast<std::byte*>(memory_->data());
  return {type_, Shape{batch_, num_kv_heads_, length, head_dim_},
          base + tensor * (bytes() / num_tensors_)};
}

std::int64_t BlockCache::bytes() const noexcept {
  const std::int64_t size =
      batch_ * num_kv_heads_ * capacity_ * head_dim_ * static_cast<std::int64_t>(size_of(type_));
  return num_tensors_ * ((size + alignment - 1) / alignment * alignment);
}

}  // namespace fastdllm
