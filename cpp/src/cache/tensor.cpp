#include "fastdllm/tensor.hpp"

#include <algorithm>
#include <initializer_list>

namespace fastdllm {

std::size_t size_of(ElementType type) noexcept {
  switch (type) {
    case ElementType::float32: return 4;
    case ElementType::float16:
    case ElementType::bfloat16: return 2;
    case ElementType::int64: return 8;
    case ElementType::boolean: return 1;
  }
  return 0;
}

std::string_view name_of(ElementType type) noexcept {
  switch (type) {
    case ElementType::float32: return "float32";
    case ElementType::float16: return "float16";
    case ElementType::bfloat16: return "bfloat16";
    case ElementType::int64: return "int64";
    case ElementType::boolean: return "boolean";
  }
  return "unknown";
}

Shape::Shape(std::initializer_list<std::int64_t> sizes) : rank(static_cast<int>(sizes.size())) {
  std::copy_n(sizes.begin(), std::min<std::size_t>(sizes.size(), dims.size()), dims.begin());
}

std::int64_t Shape::elements() const noexcept {
  std::int64_t count = 1;
  for (int i = 0; i < rank; ++i) count *= dims[static_cast<std::size_t>(i)];
  return count;
}

}  // namespace fastdllm
