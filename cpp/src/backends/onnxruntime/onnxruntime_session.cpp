#include "onnxruntime_session.hpp"

#include <onnxruntime_cxx_api.h>

#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cuda_provider.hpp"
#include "denormals.hpp"
#include "fastdllm/error.hpp"
#include "loader.hpp"
#include "support/concat.hpp"

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

Ort::SessionOptions options_of(const SessionOptions& options, const CudaProvider* gpu) {
  Ort::SessionOptions ort;
  ort.SetIntraOpNumThreads(options.threads);
  ort.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
  ort.AddConfigEntry("session.set_denormal_as_zero", "1");  // in the threads of the pool
  // x86-64 without VNNI: else the kernel that multiplies signed weights lets sums overflow.
  ort.AddConfigEntry("session.x64quantprecision", "1");
  ort.DisableMemPattern();  // the rows of a pass vary; patterns would pile up per shape
  if (gpu != nullptr) gpu->append_to(ort);
  return ort;
}

bool is_cache(const TensorSpec& tensor) {
  return tensor.name.starts_with("past_key_values.") || tensor.name.starts_with("present.");
}

class OnnxRuntimeSession final : public Session {
 public:
  /// gpu: nullptr for the CPU.
  OnnxRuntimeSession(const std::filesystem::path& graph, const SessionOptions& options,
                     std::string version, std::unique_ptr<CudaProvider> gpu)
      : gpu_(std::move(gpu)),
        env_(ORT_LOGGING_LEVEL_FATAL, "fastdllm", ignore_log, nullptr),
        session_(env_, graph.c_str(), options_of(options, gpu_.get())),
        host_(Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault)),
        cache_(gpu_ ? gpu_->memory_info()
                    : Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault)),
        binding_(session_),
        version_(std::move(version)),
        inputs_(specs_of(session_, true)),
        outputs_(specs_of(session_, false)),
        bound_inputs_(inputs_.size()),
        bound_outputs_(outputs_.size()) {}

  std::span<const TensorSpec> inputs() const noexcept override { return inputs_; }
  std::span<const TensorSpec> outputs() const noexcept override { return outputs_; }

  std::int64_t free_device_bytes() const override {
    return gpu_ ? gpu_->runtime().free_own_bytes() : 0;
  }

  std::unique_ptr<Memory> allocate_cache(std::size_t bytes) override {
    if (gpu_) return gpu_->allocate(bytes);
    return std::make_unique<HostMemory>(bytes);
  }

  void copy_cache(void* target, const void* source, std::size_t bytes) override {
    if (gpu_) return gpu_->copy(target, source, bytes);
    Session::copy_cache(target, source, bytes);
  }

  void bind_input(std::size_t index, const TensorView& tensor) override {
    bound_inputs_[index] = tensor;
    if (gpu_) return;
    guarded("to take an input", [&] {
      binding_.BindInput(inputs_[index].name.c_str(), value_of(inputs_[index], tensor));
    });
  }

  void bind_output(std::size_t index, const TensorView& tensor) override {
    bound_outputs_[index] = tensor;
    if (outputs_stale_) return;
    guarded("to take an output", [&] {
      binding_.BindOutput(outputs_[index].name.c_str(), value_of(outputs_[index], tensor));
    });
  }

  // ONNX Runtime can only clear all bound outputs: the ones that stay are bound again before a run.
  void unbind_output(std::size_t index) override {
    if (!bound_outputs_[index]) return;
    bound_outputs_[index].reset();
    outputs_stale_ = true;
  }

  void run() override {
    guarded("in a pass", [&] {
      if (outputs_stale_) rebind_outputs();
      if (gpu_) copy_inputs();
      const DenormalsAsZero denormals;  // the calling thread computes its share of a run
      session_.Run(run_options_, binding_);
      if (gpu_) binding_.SynchronizeOutputs();
    });
  }

  std::string description() const override {
    const std::string device = gpu_ ? concat("CUDA:", gpu_->runtime().device()) : "CPU";
    return concat("onnxruntime ", version_, " (", device, ")");
  }

 private:
  template <typename Call>
  static void guarded(std::string_view what, const Call& call) {
    try {
      call();
    } catch (const Ort::Exception& problem) {
      throw Error(ErrorCode::backend, concat("ONNX Runtime failed ", what, ": ", problem.what()));
    }
  }

  [[nodiscard]] Ort::Value value_of(const TensorSpec& spec, const TensorView& tensor) const {
    const std::size_t bytes =
        static_cast<std::size_t>(tensor.shape.elements()) * size_of(tensor.type);
    return Ort::Value::CreateTensor(
        is_cache(spec) ? cache_ : host_, tensor.data, bytes, tensor.shape.dims.data(),
        static_cast<std::size_t>(tensor.shape.rank), to_onnx(tensor.type));
  }

  // Binding host memory for a GPU copies it there and then: what has changed since must be bound
  // again, and so must what a node on the CPU reads of the cache.
  void copy_inputs() {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (!bound_inputs_[i]) continue;
      binding_.BindInput(inputs_[i].name.c_str(), value_of(inputs_[i], *bound_inputs_[i]));
    }
    binding_.SynchronizeInputs();
  }

  void rebind_outputs() {
    binding_.ClearBoundOutputs();
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (bound_outputs_[i]) {
        binding_.BindOutput(outputs_[i].name.c_str(), value_of(outputs_[i], *bound_outputs_[i]));
      }
    }
    outputs_stale_ = false;
  }

  std::unique_ptr<CudaProvider> gpu_;  // first: the session computes on its stream
  Ort::Env env_;
  Ort::Session session_;
  Ort::MemoryInfo host_, cache_;
  Ort::IoBinding binding_;
  Ort::RunOptions run_options_;
  std::string version_;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  std::vector<std::optional<TensorView>> bound_inputs_, bound_outputs_;
  bool outputs_stale_ = false;
};

}  // namespace

std::unique_ptr<Session> open_onnxruntime_session(const std::filesystem::path& graph,
                                                  const SessionOptions& options,
                                                  const Device& device) {
  std::string version = load_onnxruntime(options.onnxruntime_library);
  std::unique_ptr<CudaProvider> gpu;
  if (device.cuda) gpu = std::make_unique<CudaProvider>(options.cudart_library, device.index);
  const DenormalsAsZero denormals;  // restores what opening a session does to this thread
  try {
    return std::make_unique<OnnxRuntimeSession>(graph, options, std::move(version), std::move(gpu));
  } catch (const Ort::Exception& problem) {
    if (device.cuda) {
      throw Error(ErrorCode::backend,
                  concat(graph.string(), ": ONNX Runtime cannot load it on cuda:", device.index,
                         ": ", problem.what()));
    }
    throw Error(ErrorCode::bad_package,
                concat(graph.string(), ": ONNX Runtime refuses the graph: ", problem.what()));
  }
}

}  // namespace fastdllm
