// libnvinfer, opened at run time, and its types as ours.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "fastdllm/tensor.hpp"

namespace fastdllm::tensorrt {

/// The library of this process. Errors of opening: Error{backend} when it is missing, no TensorRT,
/// or of another major version than the headers.
class Library {
 public:
  /// path: "" = FASTDLLM_TENSORRT, then the loader's search.
  explicit Library(const std::string& path);

  /// "10.14.1".
  [[nodiscard]] const std::string& version() const noexcept { return version_; }
  /// nullptr: it failed, see last_message().
  [[nodiscard]] std::unique_ptr<nvinfer1::IRuntime> create_runtime() const;

 private:
  using CreateRuntime = void*(void*, std::int32_t);
  CreateRuntime* create_runtime_;
  std::int32_t version_number_;
  std::string version_;
};

/// The first error that TensorRT logged on this thread since the last call, in one line.
[[nodiscard]] std::string last_message();

/// nullopt: a type that no contract uses.
[[nodiscard]] std::optional<ElementType> element_type(nvinfer1::DataType type) noexcept;
/// nullopt: too many dimensions, or none of such a name.
[[nodiscard]] std::optional<Shape> shape_of(const nvinfer1::Dims& dims) noexcept;
[[nodiscard]] nvinfer1::Dims dims_of(const Shape& shape) noexcept;

}  // namespace fastdllm::tensorrt
