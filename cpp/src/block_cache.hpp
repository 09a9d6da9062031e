// The K/V rows that passes hand on to later ones.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "fastdllm/backend.hpp"
#include "fastdllm/package.hpp"
#include "fastdllm/tensor.hpp"

namespace fastdllm {

/// Two stores of rows on the backend's device: committed ones (finished blocks, kept between
/// requests) and refreshed ones. A store has per layer one key and one value tensor, [batch, kv
/// heads, length, head dim] in the package's cache type, keys already rotated, all in one
/// allocation. A pass reads one store as its past inputs and writes the refreshed store as its
/// present outputs, so no rows are ever moved: committing swaps the two.
class BlockCache {
 public:
  BlockCache(Session& session, const PackageInfo& package);

  /// Rows of the batch; what was stored for another batch is gone.
  void set_batch(std::int64_t batch);
  /// Makes room for `capacity` rows among the refreshed ones and gives them `length`; what was
  /// refreshed is gone.
  void refresh(std::int64_t capacity, std::int64_t length);
  void drop_refreshed() noexcept { stores_[1 - committed_].length = 0; }
  /// The refreshed rows become the committed ones.
  void commit() noexcept;
  void drop_committed() noexcept { stores_[committed_].length = 0; }

  [[nodiscard]] std::int64_t committed_length() const noexcept {
    return stores_[committed_].length;
  }
  [[nodiscard]] std::int64_t refreshed_length() const noexcept {
    return stores_[1 - committed_].length;
  }
  /// tensor: 2 * layer for keys, 2 * layer + 1 for values. Valid until the store's next refresh.
  [[nodiscard]] TensorView committed(std::int64_t tensor) { return view(committed_, tensor); }
  [[nodiscard]] TensorView refreshed(std::int64_t tensor) { return view(1 - committed_, tensor); }
  /// A view of no rows, for a pass that starts from nothing.
  [[nodiscard]] TensorView nothing() noexcept;
  /// Bytes of K/V held.
  [[nodiscard]] std::int64_t bytes() const noexcept;

 private:
  struct Store {
    std::unique_ptr<Memory> memory;
    std::int64_t capacity = 0;  // rows
    std::int64_t length = 0;
  };

  [[nodiscard]] TensorView view(std::size_t store, std::int64_t tensor);
  [[nodiscard]] std::int64_t tensor_bytes(std::int64_t capacity) const noexcept;

  Session* session_;
  ElementType type_;
  std::int64_t num_tensors_;
  std::int64_t num_kv_heads_;
  std::int64_t head_dim_;
  std::int64_t batch_ = 1;
  std::unique_ptr<Memory> nothing_;
  std::array<Store, 2> stores_;
  std::size_t committed_ = 0;
};

}  // namespace fastdllm
