#include "onnxruntime_session.hpp"

#include <onnxruntime_cxx_api.h>

#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../../concat.hpp"
#include "denormals.hpp"
#include "fastdllm/error.hpp"
#include "loader.hpp"

namespace fastdllm {
namespace {

constexpr std::array<std::pair<ElementType, ONNXTensorElementDataType>, 5> element_types{{
    {ElementType::float32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
    {ElementType::float16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {ElementType::bfloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16},
    {ElementType::int64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {ElementType::boolean, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},
}};

ONNXTensorElementDataType to_onnx(ElementType type) {
  for (const auto& [ours, theirs] : element_types) {
    if (ours == type) return theirs;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

std::vector<TensorSpec> specs_of(const Ort::Session& session, bool inputs) {
  const Ort::AllocatorWithDefaultOptions allocator;
  std::vector<TensorSpec> specs;
  const std::size_t count = inputs ? session.GetInputCount() : session.GetOutputCount();
  for (std::size_t i = 0; i < count; ++i) {
    const auto name = inputs ? session.GetInputNameAllocated(i, allocator)
                             : session.GetOutputNameAllocated(i, allocator);
    const Ort::TypeInfo type = inputs ? session.GetInputTypeInfo(i) : session.GetOutputTypeInfo(i);
    if (type.GetONNXType() != ONNX_TYPE_TENSOR) {
      throw Error(ErrorCode::bad_package, concat("model.onnx: '", name.get(), "' is no tensor"));
    }
    const auto info = type.GetTensorTypeAndShapeInfo();
    std::optional<ElementType> element;
    for (const auto& [ours, theirs] : element_types) {
      if (theirs == info.GetElementType()) element = ours;
    }
    if (!element) {
      throw Error(ErrorCode::bad_package,
                  concat("model.onnx: '", name.get(), "' has ONNX element type ",
                         static_cast<int>(info.GetElementType()), ", which no contract uses"));
    }
    specs.push_back({name.get(), *element, info.GetShape()});
  }
  return specs;
}

class HostMemory final : public Memory {
 public:
  // One byte at least: an empty tensor still needs an address. Not filled: rows that an answer
  // never comes to are never touched.
  explicit HostMemory(std::size_t bytes)
      : bytes_(std::make_unique_for_overwrite<std::byte[]>(bytes == 0 ? 1 : bytes)) {}
  void* data() noexcept override { return bytes_.get(); }

 private:
  std::unique_ptr<std::byte[]> bytes_;
};

void ignore_log(void*, OrtLoggingLevel, const char*, const char*, const char*, const char*) {}

Ort::SessionOptions options_of(const SessionOptions& options) {
  Ort::SessionOptions ort;
  ort.SetIntraOpNumThreads(options.threads);
  ort.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
  ort.AddConfigEntry("session.set_denormal_as_zero", "1");  // in the threads of the pool
  ort.DisableMemPattern();  // the rows of a pass vary; patterns would pile up per shape
  return ort;
}

class OnnxRuntimeSession final : public Session {
 public:
  OnnxRuntimeSession(const std::filesystem::path& graph, const SessionOptions& options,
                     std::string version)
      : env_(ORT_LOGGING_LEVEL_FATAL, "fastdllm", ignore_log, nullptr),
        session_(env_, graph.c_str(), options_of(options)),
        memory_info_(Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault)),
        binding_(session_),
        version_(std::move(version)),
        inputs_(specs_of(session_, true)),
        outputs_(specs_of(session_, false)),
        bound_outputs_(outputs_.size()) {}

  std::span<const TensorSpec> inputs() const noexcept override { return inputs_; }
  std::span<const TensorSpec> outputs() const noexcept override { return outputs_; }

  std::unique_ptr<Memory> allocate_cache(std::size_t bytes) override {
    return std::make_unique<HostMemory>(bytes);
  }

  void bind_input(std::size_t index, const TensorView& tensor) override {
    binding_.BindInput(inputs_[index].name.c_str(), value_of(tensor));
  }

  void bind_output(std::size_t index, const TensorView& tensor) override {
    bound_outputs_[index] = tensor;
    if (!outputs_stale_) binding_.BindOutput(outputs_[index].name.c_str(), value_of(tensor));
  }

  // ONNX Runtime can only clear all bound outputs: the ones that stay are bound again before a run.
  void unbind_output(std::size_t index) override {
    if (!bound_outputs_[index]) return;
    bound_outputs_[index].reset();
    outputs_stale_ = true;
  }

  void run() override {
    try {
      if (outputs_stale_) rebind_outputs();
      const DenormalsAsZero denormals;  // the calling thread computes its share of a run
      session_.Run(run_options_, binding_);
    } catch (const Ort::Exception& problem) {
      throw Error(ErrorCode::backend, concat("ONNX Runtime failed in a pass: ", problem.what()));
    }
  }

  std::string description() const override { return concat("onnxruntime ", version_, " (CPU)"); }

 private:
  [[nodiscard]] Ort::Value value_of(const TensorView& tensor) const {
    const std::size_t bytes =
        static_cast<std::size_t>(tensor.shape.elements()) * size_of(tensor.type);
    return Ort::Value::CreateTensor(memory_info_, tensor.data, bytes, tensor.shape.dims.data(),
                                    static_cast<std::size_t>(tensor.shape.rank),
                                    to_onnx(tensor.type));
  }

  void rebind_outputs() {
    binding_.ClearBoundOutputs();
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (bound_outputs_[i]) {
        binding_.BindOutput(outputs_[i].name.c_str(), value_of(*bound_outputs_[i]));
      }
    }
    outputs_stale_ = false;
  }

  Ort::Env env_;
  Ort::Session session_;
  Ort::MemoryInfo memory_info_;
  Ort::IoBinding binding_;
  Ort::RunOptions run_options_;
  std::string version_;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  std::vector<std::optional<TensorView>> bound_outputs_;
  bool outputs_stale_ = false;
};

}  // namespace

std::unique_ptr<Session> open_onnxruntime_session(const std::filesystem::path& graph,
                                                  const SessionOptions& options) {
  std::string version = load_onnxruntime(options.onnxruntime_library);
  const DenormalsAsZero denormals;  // restores what opening a session does to this thread
  try {
    return std::make_unique<OnnxRuntimeSession>(graph, options, std::move(version));
  } catch (const Ort::Exception& problem) {
    throw Error(ErrorCode::bad_package,
                concat(graph.string(), ": ONNX Runtime refuses the graph: ", problem.what()));
  }
}

}  // namespace fastdllm
