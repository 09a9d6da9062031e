// The K/V rows that a block's refresh pass hands to its steps.
#pragma once

#include <cstdint>
#include <memory>

#include "fastdllm/backend.hpp"
#include "fastdllm/package.hpp"
#include "fastdllm/tensor.hpp"

namespace fastdllm {

/// Per layer one key and one value tensor, [batch, kv heads, length, head dim] in the package's
/// cache type, keys already rotated. All lie in one allocation on the backend's device, made for
/// `capacity` rows and reused by later requests; a refresh writes them as its present outputs and
/// the steps bind the same memory as their past inputs.
class BlockCache {
 public:
  BlockCache(Session& session, const PackageInfo& package);

  /// Makes room for `batch` x `capacity` rows; what was cached is gone.
  void reserve(std::int64_t batch, std::int64_t capacity);
  /// The next tensors have `length` rows (<= capacity).
  void resize(std::int64_t length) noexcept { length_ = length; }

  [[nodiscard]] std::int64_t length() const noexcept { return length_; }
  /// tensor: 2 * layer for keys, 2 * layer + 1 for values. length: rows, 0 or length().
  [[nodiscard]] TensorView view(std::int64_t tensor, std::int64_t length) noexcept;
  /// Bytes of K/V for the reserved batch and capacity.
  [[nodiscard]] std::int64_t bytes() const noexcept;

 private:
  Session* session_;
  ElementType type_;
  std::int64_t num_tensors_;
  std::int64_t num_kv_heads_;
  std::int64_t head_dim_;
  std::int64_t batch_ = 0;
  std::int64_t capacity_ = 0;
  std::int64_t length_ = 0;
  std::int64_t allocated_ = 0;
  std::unique_ptr<Memory> memory_;
};

}  // namespace fastdllm
