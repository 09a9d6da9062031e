// The interface of a backend: load a graph, allocate memory, bind tensors, run. ONNX Runtime and
// TensorRT implement it; tests use a backend that returns prepared outputs.
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

/// Memory on the device of the backend. Freed by the destructor.
class FASTDLLM_API Memory {
 public:
  virtual ~Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  [[nodiscard]] virtual void* data() noexcept = 0;

 protected:
  Memory() = default;
};

/// The sizes of one run, or the largest sizes that a session accepts. They are the dimensions of
/// the graph's inputs and outputs in export/PACKAGE.md.
struct RunSizes {
  std::int64_t batch = INT64_MAX;   ///< B: requests that share the run
  std::int64_t rows = INT64_MAX;    ///< T: rows fed per request
  std::int64_t cached = INT64_MAX;  ///< P: K/V rows given as past per request
  std::int64_t wanted = INT64_MAX;  ///< N: rows per request whose prediction is computed
};

/// One loaded graph. Not thread-safe: only one thread may use it at a time. All functions throw
/// Error{backend} when the inference library fails.
class FASTDLLM_API Session {
 public:
  virtual ~Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  [[nodiscard]] virtual std::span<const TensorSpec> inputs() const noexcept = 0;
  [[nodiscard]] virtual std::span<const TensorSpec> outputs() const noexcept = 0;

  /// The largest sizes of a run; the engine refuses larger requests. Default: no limit.
  [[nodiscard]] virtual RunSizes largest_run() const { return {}; }

  /// Whether a run is cheaper when it has the same shapes as the run before. Default: no.
  [[nodiscard]] virtual bool likes_equal_shapes() const noexcept { return false; }

  /// Free bytes where allocate_cache() allocates. Default 0: allocate_cache() uses host memory.
  [[nodiscard]] virtual std::int64_t free_device_bytes() const { return 0; }

  /// Allocates memory for the K/V cache on the device. bytes may be 0.
  [[nodiscard]] virtual std::unique_ptr<Memory> allocate_cache(std::size_t bytes) = 0;

  /// Copies between places in memory of allocate_cache(), which do not overlap. The default is for
  /// memory that the host can access.
  virtual void copy_cache(void* target, const void* source, std::size_t bytes) {
    std::memcpy(target, source, bytes);
  }

  /// Binds a tensor to an input or output until another one is bound: host memory, or memory of
  /// allocate_cache() for past and present. `index` is an index into inputs() or outputs(). The
  /// caller owns the memory and keeps it until the tensor is replaced. An output without a bound
  /// tensor is not returned.
  virtual void bind_input(std::size_t index, const TensorView& tensor) = 0;
  virtual void bind_output(std::size_t index, const TensorView& tensor) = 0;
  virtual void unbind_output(std::size_t index) = 0;

  /// Runs the graph once on the bound inputs. Returns when bound outputs in host memory can be
  /// read.
  virtual void run() = 0;

  /// Name, version and device, as text to show to a user: "onnxruntime 1.32.0 (CPU)".
  [[nodiscard]] virtual std::string description() const = 0;

 protected:
  Session() = default;
};

/// How to run a package. Names and paths are checked when a session is opened.
struct SessionOptions {
  int threads = 0;  ///< CPU threads inside one run; 0 = the backend chooses
  /// Path of libonnxruntime (1.24 or newer). "" = the library that this process has already opened,
  /// else the environment variable FASTDLLM_ONNXRUNTIME, else the loader's search path.
  std::string onnxruntime_library{};
  /// "onnxruntime", "tensorrt" or "auto". "auto" is TensorRT when the device is a GPU and there is
  /// an engine for it (tensorrt_engine, or one in the folder PACKAGE.engines), else ONNX Runtime.
  std::string backend = "auto";
  std::string device = "cpu";  ///< "cpu", "cuda" (the first GPU) or "cuda:N"; TensorRT needs a GPU
  /// Path of an engine made by `fastdllm build-engine`. "" = the engine for this GPU in the folder
  /// PACKAGE.engines.
  std::string tensorrt_engine{};
  /// Path of libnvinfer. "" = the environment variable FASTDLLM_TENSORRT, else the loader's search
  /// path.
  std::string tensorrt_library{};
  /// Path of libcudart. "" = the environment variable FASTDLLM_CUDART, else the loader's search
  /// path.
  std::string cudart_library{};
  bool cuda_graph = true;  ///< TensorRT: replay steps of equal shapes as a CUDA graph
};

struct PackageInfo;

/// Loads a package's graph with the backend and on the device that the options name. Errors:
/// Error{bad_config} for an unknown name; Error{backend} when a library, GPU or engine is missing;
/// Error{bad_package} when the graph or the engine does not match the package.
[[nodiscard]] FASTDLLM_API std::unique_ptr<Session> open_session(const PackageInfo& package,
                                                                 const SessionOptions& options);

/// Path of the ONNX Runtime library that this process has opened; "" before the first session. A
/// process opens only one: options that name another one are refused.
[[nodiscard]] FASTDLLM_API std::string loaded_onnxruntime();

/// The backends in this build, by the names that SessionOptions::backend takes.
[[nodiscard]] FASTDLLM_API std::vector<std::string> built_backends();

}  // namespace fastdllm
