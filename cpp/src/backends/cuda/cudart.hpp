// CUDA's runtime library, opened at run time: memory, a stream, graphs. No CUDA header is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "fastdllm/backend.hpp"

namespace fastdllm::cuda {

using StreamHandle = void*;  ///< a cudaStream_t

/// The library's functions that we call, by their C signatures; enumerations are integers.
struct Functions;

/// One GPU of this process. Everything below shares it and calls use() before its own calls, for
/// CUDA's current device belongs to a thread. Immutable and thread-safe.
class Runtime {
 public:
  /// library: path of libcudart, "" = FASTDLLM_CUDART, then the loader's search. device: from 0.
  /// Errors: Error{backend} when the library is missing or too old, or there is no such GPU.
  [[nodiscard]] static std::shared_ptr<const Runtime> open(const std::string& library, int device);
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// Makes the GPU the calling thread's.
  void use() const;
  [[nodiscard]] int device() const noexcept { return device_; }
  [[nodiscard]] const std::string& device_name() const noexcept { return name_; }
  /// Compute capability as engines are named by it: "sm87".
  [[nodiscard]] const std::string& target() const noexcept { return target_; }
  /// "12.9".
  [[nodiscard]] const std::string& version() const noexcept { return version_; }
  /// Device memory that is free now.
  [[nodiscard]] std::size_t free_bytes() const;
  /// The same as Session::free_device_bytes() says it: 0 where the GPU computes in the host's
  /// memory (Jetson), of which files that were read count as used.
  [[nodiscard]] std::int64_t free_own_bytes() const;

  [[nodiscard]] const Functions& functions() const noexcept { return *functions_; }
  /// Errors: Error{backend} with CUDA's own words if `status` is not 0.
  void check(int status, std::string_view what) const;

 private:
  Runtime(const std::string& library, int device);

  std::unique_ptr<const Functions> functions_;
  int device_;
  bool integrated_ = false;
  std::string name_, target_, version_;
};

/// Memory on the GPU, not filled; 0 bytes have an address too. Errors: Error{backend} naming what
/// was to be held and what is free.
class DeviceMemory final : public Memory {
 public:
  DeviceMemory(std::shared_ptr<const Runtime> runtime, std::size_t bytes, std::string_view what);
  ~DeviceMemory() override;
  void* data() noexcept override { return data_; }

 private:
  std::shared_ptr<const Runtime> runtime_;
  void* data_ = nullptr;
};

/// Page-locked memory of the host, which copies to and from the GPU do not stop for.
class PinnedMemory final : public Memory {
 public:
  PinnedMemory(std::shared_ptr<const Runtime> runtime, std::size_t bytes, std::string_view what);
  ~PinnedMemory() override;
  void* data() noexcept override { return data_; }

 private:
  std::shared_ptr<const Runtime> runtime_;
  void* data_ = nullptr;
};

class Stream;

/// Work that was captured from a stream, to be put on it again at once. The addresses in it must
/// still be good then.
class Graph {
 public:
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(const Stream& stream) const;

 private:
  friend class Stream;
  Graph(std::shared_ptr<const Runtime> runtime, void* executable) noexcept;

  std::shared_ptr<const Runtime> runtime_;
  void* executable_;
};

/// Work in order. One thread at a time. Errors: Error{backend}.
class Stream {
 public:
  explicit Stream(std::shared_ptr<const Runtime> runtime);
  /// Waits for what is on it.
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  [[nodiscard]] StreamHandle handle() const noexcept { return stream_; }
  /// Between any two places of host and device; returns before it is done unless host memory is
  /// not pinned.
  void copy(void* target, const void* source, std::size_t bytes) const;
  void synchronize() const;
  /// Captures what `record` puts on the stream instead of running it. nullptr: `record` returned
  /// false or CUDA cannot capture it; nothing is on the stream then. What `record` throws comes
  /// out.
  [[nodiscard]] std::unique_ptr<Graph> capture(const std::function<bool()>& record) const;

 private:
  std::shared_ptr<const Runtime> runtime_;
  StreamHandle stream_ = nullptr;
};

}  // namespace fastdllm::cuda
