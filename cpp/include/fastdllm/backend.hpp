// The backend seam: load a graph, allocate, bind, run. ONNX Runtime is the first implementation;
// tests drive the unmasking loop through a scripted one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

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

/// Sizes of one run, or the largest that a session takes.
struct RunSizes {
  std::int64_t batch = INT64_MAX;   ///< requests side by side
  std::int64_t rows = INT64_MAX;    ///< fed, of each
  std::int64_t cached = INT64_MAX;  ///< given as past, of each
  std::int64_t wanted = INT64_MAX;  ///< whose predictions are asked for, of each
};

/// One loaded graph. Not thread-safe: one thread at a time. Errors: Error{backend}.
class FASTDLLM_API Session {
 public:
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  [[nodiscard]] virtual std::span<const TensorSpec> inputs() const noexcept = 0;
  [[nodiscard]] virtual std::span<const TensorSpec> outputs() const noexcept = 0;

  /// What is larger is refused. Here: nothing is.
  [[nodiscard]] virtual RunSizes largest_run() const { return {}; }

  /// Whether runs that repeat the shapes of the one before cost less. Here: no.
  [[nodiscard]] virtual bool likes_equal_shapes() const noexcept { return false; }

  /// Memory that is free for K/V where allocate_cache() takes it. Here 0: the host's.
  [[nodiscard]] virtual std::int64_t free_device_bytes() const { return 0; }

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

/// How to run a package. Names and paths are checked when a session is opened.
struct SessionOptions {
  int threads = 0;  ///< threads inside one run; 0 = as many as the backend finds sensible
  /// path of libonnxruntime (1.24 or newer); "" = the one that this process has opened, else
  /// FASTDLLM_ONNXRUNTIME, then the loader's search
  std::string onnxruntime_library{};
  /// "onnxruntime", "tensorrt", or "auto": TensorRT where the device is a GPU and an engine for it
  /// was named or lies in PACKAGE.engines, else ONNX Runtime.
  std::string backend = "auto";
  std::string device = "cpu";  ///< "cpu", "cuda" (the first GPU) or "cuda:N"; TensorRT needs a GPU
  std::string tensorrt_engine{};  ///< path of an engine that `fastdllm build-engine` made; "" = the
                                  ///< one for this GPU in PACKAGE.engines
  std::string tensorrt_library{};  ///< path of libnvinfer; "" = FASTDLLM_TENSORRT, then the
                                   ///< loader's search
  std::string cudart_library{};    ///< path of libcudart; "" = FASTDLLM_CUDART, then likewise
  bool cuda_graph = true;  ///< TensorRT: steps whose shapes stay are replayed as a CUDA graph
};

struct PackageInfo;

/// Loads a package's graph with the backend and on the device that the options say. Errors:
/// Error{bad_config} for an unknown name; Error{backend} when a library, GPU or engine is missing;
/// Error{bad_package} when the graph or engine does not fit.
[[nodiscard]] FASTDLLM_API std::unique_ptr<Session> open_session(const PackageInfo& package,
                                                                 const SessionOptions& options);

/// Path of the ONNX Runtime library that this process has opened, "" before its first session. A
/// process holds one: options that name another are refused.
[[nodiscard]] FASTDLLM_API std::string loaded_onnxruntime();

/// The backends that this build has, as SessionOptions::backend names them.
[[nodiscard]] FASTDLLM_API std::vector<std::string> built_backends();

}  // namespace fastdllm
