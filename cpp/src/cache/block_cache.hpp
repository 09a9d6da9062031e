// The K/V rows of a request that later passes reuse.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache/pass.hpp"
#include "fastdllm/backend.hpp"
#include "fastdllm/package.hpp"
#include "fastdllm/tensor.hpp"

namespace fastdllm {

/// Rounds the bytes of one of several tensors in an allocation up: CUDA wants such addresses.
[[nodiscard]] constexpr std::int64_t aligned_bytes(std::int64_t bytes) noexcept {
  constexpr std::int64_t alignment = 256;
  return (bytes + alignment - 1) / alignment * alignment;
}

/// Two stores of rows on the backend's device: committed ones (finished blocks, kept for a later
/// request that begins with the same tokens) and refreshed ones. A store has per layer one key and
/// one value tensor, [batch, kv heads, length, head dim] in the package's cache type, keys already
/// rotated, all in one allocation. A pass reads one store as its past inputs and writes the
/// refreshed store as its present outputs, so no rows are ever moved: committing swaps the two.
class BlockCache {
 public:
  /// clock: counts the changes of all caches of a session; borrowed, like the session.
  BlockCache(Session& session, const PackageInfo& package, std::int64_t batch,
             std::uint64_t& clock);

  /// Makes room for `capacity` rows among the refreshed ones and gives them `length`, of which the
  /// first `visible` are attended to; the old refreshed rows are dropped.
  void refresh(std::int64_t capacity, std::int64_t length, std::int64_t visible);
  void drop_refreshed() noexcept;
  /// The refreshed rows become the committed ones, of these tokens.
  void commit(std::span<const std::int32_t> ids);
  /// Forgets the committed rows and sets the block length of the next ones.
  void drop_committed(std::int64_t block_length) noexcept;

  /// Committed rows that a canvas beginning with `ids` can go on from: whole blocks of this length
  /// with the same ids.
  [[nodiscard]] std::int64_t reusable_rows(std::span<const std::int32_t> ids,
                                           std::int64_t block_length) const noexcept;

  [[nodiscard]] std::int64_t committed_length() const noexcept {
    return stores_[committed_].length;
  }
  /// The rows that a pass is given, and how many of them it attends to.
  [[nodiscard]] std::int64_t length(Past past) const noexcept;
  [[nodiscard]] std::int64_t visible(Past past) const noexcept;
  /// tensor: 2 * layer for keys, 2 * layer + 1 for values. Valid until the store's next refresh.
  [[nodiscard]] TensorView view(Past past, std::int64_t tensor) noexcept;
  /// Of what the stores hold: another one after every change, and in every cache.
  [[nodiscard]] std::uint64_t version() const noexcept { return version_; }
  [[nodiscard]] std::int64_t batch() const noexcept { return batch_; }
  /// Bytes of K/V held.
  [[nodiscard]] std::int64_t bytes() const noexcept;
  /// The same once `rows` rows were refreshed, and committed too or not.
  [[nodiscard]] std::int64_t bytes_with(std::int64_t rows, bool committed) const noexcept;

 private:
  struct Store {
    std::unique_ptr<Memory> memory;
    std::int64_t capacity = 0;  // rows
    std::int64_t length = 0;
    std::int64_t visible = 0;
  };

  [[nodiscard]] std::int64_t tensor_bytes(std::int64_t capacity) const noexcept;

  Session* session_;
  ElementType type_;
  std::int64_t num_tensors_;
  std::int64_t num_kv_heads_;
  std::int64_t head_dim_;
  std::int64_t batch_;
  std::unique_ptr<Memory> nothing_;
  std::array<Store, 2> stores_;
  std::size_t committed_ = 0;
  std::uint64_t* clock_;
  std::uint64_t version_ = 0;
  std::vector<std::int32_t> committed_ids_;
  std::int64_t committed_block_length_ = 0;
};

}  // namespace fastdllm
