// Tensors as the engine hands them to a backend: row-major, contiguous, at most four dimensions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/export.h"

namespace fastdllm {

enum class ElementType { float32, float16, bfloat16, int64, boolean };

/// Bytes of one element.
[[nodiscard]] FASTDLLM_API std::size_t size_of(ElementType type) noexcept;
/// "float32", "float16", "bfloat16", "int64", "boolean".
[[nodiscard]] FASTDLLM_API std::string_view name_of(ElementType type) noexcept;

/// Up to four dimensions, stored in place: making one allocates no memory.
struct FASTDLLM_API Shape {
  std::array<std::int64_t, 4> dims{};
  int rank = 0;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes);

  [[nodiscard]] std::int64_t elements() const noexcept;
  friend bool operator==(const Shape& a, const Shape& b) noexcept = default;
};

/// Borrowed memory with a type and a shape. Its owner keeps it until no run uses it any more.
struct TensorView {
  ElementType type = ElementType::float32;
  Shape shape;
  void* data = nullptr;

  friend bool operator==(const TensorView& a, const TensorView& b) noexcept = default;
};

/// The name, type and shape of a graph's input or output. -1 stands for a dimension that varies.
struct TensorSpec {
  std::string name;
  ElementType type = ElementType::float32;
  std::vector<std::int64_t> shape;
};

}  // namespace fastdllm
