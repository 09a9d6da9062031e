// The backend seam: load a graph, allocate, bind, run. ONNX Runtime is the first implementation;
// tests drive the unmasking loop through a scripted one.
#pragma once

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "fastdllm/export.h"
#include "fastdllm/tensor.hpp"

namespace fastdllm {

/// Memory that lives where the backend computes. Freed with the object.
class FASTDLLM_API Memory {
 public:
  virtual ~Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  [[nodiscard]] virtual void* data() noexcept = 0;

 protected:
  Memory() = default;
};

/// One loaded graph. Not thread-safe: one thread at a time. Errors: Error{backend}.
class FASTDLLM_API Session {
 public:
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  [[nodiscard]] virtual std::span<const TensorSpec> inputs() const noexcept = 0;
  [[nodiscard]] virtual std::span<const TensorSpec> outputs() const noexcept = 0;

  /// Memory for the KV cache, on the device. bytes may be 0.
  [[nodiscard]] virtual std::unique_ptr<Memory> allocate_cache(std::size_t bytes) = 0;

  /// Copies within such memory; the parts do not overlap. Here for memory that the host can reach.
  virtual void copy_cache(void* target, const void* source, std::size_t bytes) {
    std::memcpy(target, source, bytes);
  }

  /// Binds host memory, or cache memory for past and present, until bound anew. `index` counts in
  /// inputs() / outputs(). An output that is not bound, or unbound, is not handed back.
  virtual void bind_input(std::size_t index, const TensorView& tensor) = 0;
  virtual void bind_output(std::size_t index, const TensorView& tensor) = 0;
  virtual void unbind_output(std::size_t index) = 0;

  /// Runs the graph once on what is bound and returns when the bound host outputs are readable.
  virtual void run() = 0;

  /// Name, version and device, for people: "onnxruntime 1.32.0 (CPU)".
  [[nodiscard]] virtual std::string description() const = 0;

 protected:
  Session() = default;
};

struct SessionOptions {
  int threads = 0;  ///< threads inside one run; 0 = as many as the backend finds sensible
  std::string onnxruntime_library{};  ///< path of libonnxruntime; "" = FASTDLLM_ONNXRUNTIME, then
                                      ///< the loader's search
};

/// Loads a package's graph; its external weights lie beside it.
[[nodiscard]] FASTDLLM_API std::unique_ptr<Session> open_session(const std::filesystem::path& graph,
                                                                 const SessionOptions& options);

}  // namespace fastdllm
