#include "staging.hpp"

#include <algorithm>
#include <utility>

namespace fastdllm::tensorrt {

Staging::Staging(std::shared_ptr<const cuda::Runtime> runtime, const char* what) noexcept
    : runtime_(std::move(runtime)), what_(what) {}

template <typename Kind>
void Staging::grow(std::unique_ptr<Kind>& memory, std::size_t& held, std::size_t bytes) {
  if (memory && bytes <= held) return;
  const std::size_t more = std::max(bytes, held + held / 2);  // contexts grow a little at a time
  memory.reset();                                             // never hold both
  held = 0;
  memory = std::make_unique<Kind>(runtime_, more, what_);
  held = more;
}

void Staging::reserve(std::size_t host_bytes, std::size_t device_bytes) {
  grow(host_, host_bytes_, host_bytes);
  grow(device_, device_bytes_, device_bytes);
}

std::byte* Staging::host(std::size_t offset) const noexcept {
  return static_cast<std::byte*>(host_->data()) + offset;
}

std::byte* Staging::device(std::size_t offset) const noexcept {
  return static_cast<std::byte*>(device_->data()) + offset;
}

}  // namespace fastdllm::tensorrt
