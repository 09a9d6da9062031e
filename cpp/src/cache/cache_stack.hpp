// K/V rows of several requests, one after another in memory, for one graph run.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache/block_cache.hpp"

namespace fastdllm {

/// A copy of what requests of one length hold in their own caches. A request's rows are copied when
/// they are new or at another place in the stack, not from step to step.
class CacheStack {
 public:
  /// length: of the rows of each request.
  CacheStack(Session& session, const PackageInfo& package, std::int64_t length);

  struct Entry {
    BlockCache* cache = nullptr;
    Past past = Past::none;
  };
  /// Which entry to stack at each place, so that the least is copied. [n], valid until the next
  /// call.
  [[nodiscard]] std::span<const std::size_t> arrange(std::span<const Entry> entries);
  /// Stacks the entries in this order; all of batch 1 and of this length.
  void gather(std::span<const Entry> entries);
  /// Bytes that it holds if so many requests are gathered next.
  [[nodiscard]] std::int64_t bytes(std::int64_t count) const noexcept;
  [[nodiscard]] std::int64_t length() const noexcept { return length_; }
  /// [n, kv heads, length, head dim] of what was gathered. tensor: as in BlockCache.
  [[nodiscard]] TensorView view(std::int64_t tensor) noexcept;

 private:
  struct Place {
    std::uint64_t version = 0;
    Past past = Past::none;
    friend bool operator==(const Place&, const Place&) = default;
  };
  [[nodiscard]] static Place place_of(const Entry& entry) noexcept;

  Session* session_;
  ElementType type_;
  std::int64_t num_tensors_;
  std::int64_t num_kv_heads_;
  std::int64_t head_dim_;
  std::unique_ptr<Memory> memory_;
  std::int64_t row_bytes_;  // of one tensor of one request
  std::int64_t length_;
  std::int64_t most_ = 0;  // places there are
  std::int64_t count_ = 0;
  std::vector<Place> places_;
  std::vector<std::size_t> order_;
};

}  // namespace fastdllm
