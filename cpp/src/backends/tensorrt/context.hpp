// One profile of an engine, ready to run: its last shapes and addresses, and its CUDA graph.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "../cuda/cudart.hpp"
#include "loaded_engine.hpp"

namespace fastdllm::tensorrt {

/// One copy on the stream, before or behind a run.
struct Copy {
  void* target = nullptr;
  const void* source = nullptr;
  std::size_t bytes = 0;
  friend bool operator==(const Copy&, const Copy&) noexcept = default;
};

/// A size that TensorRT reads on the host, at an address as it wants them.
struct alignas(256) HostSize {
  std::int64_t value = 0;
};

/// Tells TensorRT only what has changed. A run that repeats the one before, with the same shapes,
/// addresses and copies, is captured as a CUDA graph and replayed from then on; whatever changes
/// drops the graph, for it holds shapes and addresses. Everything is borrowed. Errors:
/// Error{backend}; forget() has to be called then.
class Context {
 public:
  Context(const LoadedEngine& engine, int profile, const cuda::Stream& stream, bool graphs);

  /// Memory that the runs of all contexts share, one after the other.
  void set_scratch(void* memory, std::int64_t bytes);

  /// Whether the profile has room for inputs of these shapes. [inputs]
  [[nodiscard]] bool takes(std::span<const Shape> shapes) const noexcept;
  /// values: of the inputs on the host, whatever else. [inputs]
  void set_shapes(std::span<const Shape> shapes, std::span<const std::int64_t> values);
  /// As they follow from the inputs'. [outputs]
  [[nodiscard]] std::span<const Shape> output_shapes() const noexcept { return output_shapes_; }
  /// Of an input or output on the device, aligned to 256 bytes.
  void set_input(std::size_t index, void* address);
  void set_output(std::size_t index, void* address);
  void set_copies(const Copy& before, const Copy& behind);

  /// Puts the copies and the run on the stream.
  void run();
  /// Makes the next run tell TensorRT everything again.
  void forget() noexcept;

 private:
  void changed() noexcept;
  void require(bool done, const char* what, const std::string& name) const;
  [[nodiscard]] bool enqueue();
  [[nodiscard]] bool capture();

  const LoadedEngine* engine_;
  int profile_;
  const cuda::Stream* stream_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::vector<Shape> shapes_, output_shapes_;
  std::vector<HostSize> values_;  // what TensorRT reads of inputs on the host
  std::vector<void*> inputs_, outputs_;
  Copy before_, behind_;
  bool known_ = false;    // the shapes are what TensorRT was told
  bool graphs_;           // runs may be captured
  bool repeats_ = false;  // the last run was the same
  std::unique_ptr<cuda::Graph> graph_;
};

}  // namespace fastdllm::tensorrt
