// Small tensors of a run, side by side in pinned memory and on the device: one copy moves them all.
#pragma once

#include <cstddef>
#include <memory>

#include "../cuda/cudart.hpp"

namespace fastdllm::tensorrt {

/// Rounds a size up to the alignment that TensorRT needs.
[[nodiscard]] constexpr std::size_t aligned(std::size_t bytes) noexcept {
  constexpr std::size_t alignment = 256;
  return (bytes + alignment - 1) / alignment * alignment;
}

/// Grows and never shrinks, so that runs of shapes seen before allocate nothing.
class Staging {
 public:
  /// what: for messages.
  Staging(std::shared_ptr<const cuda::Runtime> runtime, const char* what) noexcept;

  /// Makes room; content and addresses may change. The device holds `device_bytes`, of which the
  /// host mirrors the first `host_bytes`. Nothing may be under way. Errors: Error{backend}.
  void reserve(std::size_t host_bytes, std::size_t device_bytes);
  [[nodiscard]] std::byte* host(std::size_t offset) const noexcept;
  [[nodiscard]] std::byte* device(std::size_t offset) const noexcept;

 private:
  template <typename Kind>
  void grow(std::unique_ptr<Kind>& memory, std::size_t& held, std::size_t bytes);

  std::shared_ptr<const cuda::Runtime> runtime_;
  const char* what_;
  std::unique_ptr<cuda::PinnedMemory> host_;
  std::unique_ptr<cuda::DeviceMemory> device_;
  std::size_t host_bytes_ = 0, device_bytes_ = 0;
};

}  // namespace fastdllm::tensorrt
