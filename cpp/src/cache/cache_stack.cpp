#include "cache/cache_stack.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>

namespace fastdllm {

CacheStack::CacheStack(Session& session, const PackageInfo& package, std::int64_t length)
    : session_(&session),
      type_(package.cache_type),
      num_tensors_(2 * package.num_layers),
      num_kv_heads_(package.num_kv_heads),
      head_dim_(package.head_dim),
      row_bytes_(static_cast<std::int64_t>(size_of(type_)) * num_kv_heads_ * length * head_dim_),
      length_(length) {}

std::int64_t CacheStack::bytes(std::int64_t count) const noexcept {
  return num_tensors_ * aligned_bytes(std::max(most_, count) * row_bytes_);
}

CacheStack::Place CacheStack::place_of(const Entry& entry) noexcept {
  return {entry.cache->version(), entry.past};
}

std::span<const std::size_t> CacheStack::arrange(std::span<const Entry> entries) {
  order_.resize(entries.size());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  for (std::size_t i = 0; i < std::min(entries.size(), places_.size()); ++i) {
    const auto found = std::find_if(
        order_.begin() + static_cast<std::ptrdiff_t>(i), order_.end(),
        [&](std::size_t candidate) { return place_of(entries[candidate]) == places_[i]; });
    if (found != order_.end()) std::swap(order_[i], *found);
  }
  return order_;
}

void CacheStack::gather(std::span<const Entry> entries) {
  count_ = std::ssize(entries);
  if (!memory_ || count_ > most_) {
    places_.clear();
    memory_.reset();  // never hold both
    memory_ = session_->allocate_cache(static_cast<std::size_t>(bytes(count_)));
    most_ = std::max(most_, count_);
  }
  places_.resize(static_cast<std::size_t>(most_));
  if (row_bytes_ == 0) return;
  for (std::int64_t i = 0; i < count_; ++i) {
    const Entry& entry = entries[static_cast<std::size_t>(i)];
    Place& place = places_[static_cast<std::size_t>(i)];
    if (place == place_of(entry)) continue;
    place = {};
    for (std::int64_t tensor = 0; tensor < num_tensors_; ++tensor) {
      auto* target = static_cast<std::byte*>(view(tensor).data) + i * row_bytes_;
      session_->copy_cache(target, entry.cache->view(entry.past, tensor).data,
                           static_cast<std::size_t>(row_bytes_));
    }
    place = place_of(entry);
  }
}

TensorView CacheStack::view(std::int64_t tensor) noexcept {
  return {type_, Shape{count_, num_kv_heads_, length_, head_dim_},
          static_cast<std::byte*>(memory_->data()) + tensor * aligned_bytes(most_ * row_bytes_)};
}

}  // namespace fastdllm
