// An engine in memory, and the facts of its tensors and profiles.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine_record.hpp"
#include "fastdllm/backend.hpp"
#include "nvinfer.hpp"

namespace fastdllm::tensorrt {

/// An input or output, as the graph has it.
struct Tensor {
  TensorSpec spec;
  bool in_cache = false;  ///< past or present: bound to device memory as it is
  bool on_host = false;   ///< a size that TensorRT reads on the host: one int64
  /// Of an input, per profile: its least and largest shape.
  std::vector<Shape> least, most;
};

class LoadedEngine {
 public:
  /// Errors: Error{backend} when TensorRT refuses the engine, Error{bad_package} when it has
  /// tensors that no contract has.
  LoadedEngine(const Library& library, const EngineFile& file);

  [[nodiscard]] nvinfer1::ICudaEngine& engine() const noexcept { return *engine_; }
  [[nodiscard]] const std::vector<Tensor>& inputs() const noexcept { return inputs_; }
  [[nodiscard]] const std::vector<Tensor>& outputs() const noexcept { return outputs_; }
  [[nodiscard]] int num_profiles() const noexcept { return num_profiles_; }
  /// Device memory that a run of any profile needs beside its tensors.
  [[nodiscard]] std::int64_t scratch_bytes() const noexcept;
  /// The largest sizes that any profile takes.
  [[nodiscard]] RunSizes largest_run() const noexcept { return largest_run_; }

 private:
  void read_tensors(const std::string& where);
  void read_sizes(const std::string& where);
  [[nodiscard]] std::int64_t largest(const std::string& input, std::size_t dimension,
                                     const std::string& where) const;

  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  int num_profiles_ = 0;
  std::vector<Tensor> inputs_, outputs_;
  RunSizes largest_run_;
};

}  // namespace fastdllm::tensorrt
