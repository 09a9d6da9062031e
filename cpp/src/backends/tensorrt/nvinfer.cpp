#include "nvinfer.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "../library.hpp"
#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm::tensorrt {
namespace {

// getDeviceMemorySizeForProfileV2 and setDeviceMemoryV2 came with 10.1.
constexpr std::int32_t oldest_version = 100100;

// Keeps what explains a failure. TensorRT remembers the first logger of a process beyond the
// objects made with it, so there is one for good, and messages go by thread.
class Logger final : public nvinfer1::ILogger {
 public:
  static Logger& get() {
    static Logger& logger = *new Logger;
    return logger;
  }

  void log(Severity severity, const nvinfer1::AsciiChar* message) noexcept override {
    if (severity > Severity::kERROR || message == nullptr || !first().empty()) return;
    try {
      first() = message;
      std::replace(first().begin(), first().end(), '\n', ' ');
    } catch (...) {  // no memory for the message
    }
  }

  [[nodiscard]] static std::string take() { return std::exchange(first(), {}); }

 private:
  static std::string& first() noexcept {
    static thread_local std::string message;
    return message;
  }
};

}  // namespace

Library::Library(const std::string& path) {
  void* handle = open_library({.title = "TensorRT",
                               .remedy = "install TensorRT",
                               .option = "tensorrt_library",
                               .variable = "FASTDLLM_TENSORRT",
                               .names = {concat("libnvinfer.so.", NV_TENSORRT_MAJOR)}},
                              path);
  using GetVersion = std::int32_t();
  const auto get_version = reinterpret_cast<GetVersion*>(find_symbol(handle, "getInferLibVersion"));
  create_runtime_ =
      reinterpret_cast<CreateRuntime*>(find_symbol(handle, "createInferRuntime_INTERNAL"));
  if (get_version == nullptr || create_runtime_ == nullptr) {
    throw Error(ErrorCode::backend,
                "the library has no createInferRuntime_INTERNAL: it is no TensorRT");
  }
  version_number_ = get_version();
  // 10 and newer count in ten thousands, older ones in thousands.
  const std::int32_t unit = version_number_ >= 100000 ? 10000 : 1000;
  const std::int32_t major = version_number_ / unit;
  version_ = concat(major, ".", version_number_ % unit / 100, ".", version_number_ % 100);
  if (major != NV_TENSORRT_MAJOR || version_number_ < oldest_version) {
    throw Error(ErrorCode::backend,
                concat("the library is of TensorRT ", version_, "; expected ", NV_TENSORRT_MAJOR,
                       NV_TENSORRT_MAJOR == 10 ? ".1 or newer of 10" : "",
                       ", whose headers this fastdllm was built with"));
  }
}

// The library is told its own version, not that of our headers: of its interface only what every
// minor version has is called, and new functions come behind the old ones.
std::unique_ptr<nvinfer1::IRuntime> Library::create_runtime() const {
  return std::unique_ptr<nvinfer1::IRuntime>(
      static_cast<nvinfer1::IRuntime*>(create_runtime_(&Logger::get(), version_number_)));
}

std::string last_message() {
  std::string message = Logger::take();
  return message.empty() ? "it does not say why" : message;
}

std::optional<ElementType> element_type(nvinfer1::DataType type) noexcept {
  switch (type) {
    case nvinfer1::DataType::kFLOAT: return ElementType::float32;
    case nvinfer1::DataType::kHALF: return ElementType::float16;
    case nvinfer1::DataType::kBF16: return ElementType::bfloat16;
    case nvinfer1::DataType::kINT64: return ElementType::int64;
    case nvinfer1::DataType::kBOOL: return ElementType::boolean;
    default: return std::nullopt;
  }
}

std::optional<Shape> shape_of(const nvinfer1::Dims& dims) noexcept {
  Shape shape;
  if (dims.nbDims < 0 || dims.nbDims > static_cast<std::int32_t>(shape.dims.size())) {
    return std::nullopt;
  }
  shape.rank = dims.nbDims;
  std::copy_n(dims.d, dims.nbDims, shape.dims.begin());
  return shape;
}

nvinfer1::Dims dims_of(const Shape& shape) noexcept {
  nvinfer1::Dims dims{};
  dims.nbDims = shape.rank;
  std::copy_n(shape.dims.begin(), shape.rank, dims.d);
  return dims;
}

}  // namespace fastdllm::tensorrt
