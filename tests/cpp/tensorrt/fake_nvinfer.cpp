// libnvinfer without a GPU; see fake_nvinfer.hpp.
#include "fake_nvinfer.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include "../cuda/fake_cuda.hpp"
#include "unused_functions.hpp"

namespace fake_nvinfer {
namespace {

using namespace nvinfer1;
using fastdllm::ElementType;

ILogger* logger = nullptr;

bool refuse(const std::string& message) {
  logger->log(ILogger::Severity::kERROR, message.c_str());
  return false;
}

DataType type_of(ElementType type) {
  switch (type) {
    case ElementType::float32: return DataType::kFLOAT;
    case ElementType::float16: return DataType::kHALF;
    case ElementType::bfloat16: return DataType::kBF16;
    case ElementType::int64: return DataType::kINT64;
    case ElementType::boolean: return DataType::kBOOL;
  }
  return DataType::kINT8;
}

std::optional<std::int64_t> fixed(const std::string& dim) {
  if (dim.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return std::stoll(dim);
}

const Tensor* find(const char* name) {
  for (const Tensor& tensor : state().tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

template <typename SizeOf>
Dims dims_of(const Tensor* tensor, SizeOf&& size_of) {
  Dims dims{};
  dims.nbDims = tensor == nullptr ? -1 : static_cast<std::int32_t>(tensor->dims.size());
  for (std::int32_t i = 0; i < dims.nbDims; ++i) {
    const std::string& dim = tensor->dims[static_cast<std::size_t>(i)];
    dims.d[i] = fixed(dim) ? *fixed(dim) : size_of(dim);
  }
  return dims;
}

// Deleting what TensorRT hands out deletes the part behind it, as there.
template <typename Interface, typename Part>
class Handle final : public Interface {
 public:
  template <typename... Arguments>
  explicit Handle(const Arguments&... arguments) : part_(arguments...) {
    this->mImpl = &part_;
  }

 private:
  Part part_;
};

class ContextPart final : public UnusedContext {
 public:
  ContextPart() { ++state().contexts; }
  ~ContextPart() override { --state().contexts; }

  bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t) noexcept override {
    profile_ = profile;
    dims_.clear();
    stale_ = true;
    return profile >= 0 && profile < static_cast<std::int32_t>(state().profiles.size());
  }

  bool setInputShape(const char* name, const Dims& dims) noexcept override {
    const Tensor* tensor = find(name);
    if (tensor == nullptr || tensor->is_output) return refuse("setInputShape of no input");
    if (dims.nbDims != static_cast<std::int32_t>(tensor->dims.size())) return refuse("wrong rank");
    const Profile& profile = state().profiles[static_cast<std::size_t>(profile_)];
    for (std::int32_t i = 0; i < dims.nbDims; ++i) {
      const std::string& dim = tensor->dims[static_cast<std::size_t>(i)];
      const auto range = fixed(dim) ? std::pair(*fixed(dim), *fixed(dim)) : profile.sizes.at(dim);
      if (dims.d[i] < range.first || dims.d[i] > range.second) {
        return refuse("setInputShape: " + dim + " is outside the profile");
      }
    }
    dims_[name] = dims;
    stale_ = true;
    ++state().shape_changes;
    return true;
  }

  bool setTensorAddress(const char* name, void* address) noexcept override {
    const Tensor* tensor = find(name);
    if (tensor == nullptr) return refuse("setTensorAddress of no tensor");
    if (reinterpret_cast<std::uintptr_t>(address) % 256 != 0) {
      return refuse(tensor->name + ": address is not aligned");
    }
    if (tensor->on_host) stale_ = true;
    addresses_[name] = address;
    ++state().address_changes;
    return true;
  }
  bool setInputTensorAddress(const char* name, const void* address) noexcept override {
    return setTensorAddress(name, const_cast<void*>(address));
  }

  std::int32_t inferShapes(std::int32_t, const char**) noexcept override {
    return read_sizes() ? 0 : 1;
  }

  Dims getTensorShape(const char* name) const noexcept override {
    return dims_of(find(name), [&](const std::string& size) {
      const auto found = sizes_.find(size);
      return found == sizes_.end() ? -1 : found->second;
    });
  }

  void setDeviceMemoryV2(void* memory, std::int64_t bytes) noexcept override {
    scratch_ = memory;
    scratch_bytes_ = bytes;
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    const bool captured = fake_cuda::is_capturing(stream);
    if (state().fails_in_run && !captured) return refuse("a kernel failed");
    if (captured && (stale_ || state().fails_in_capture)) {
      fake_cuda::break_capture(stream);
      return refuse("a shape changed: this run cannot be captured");
    }
    if (!read_sizes()) return false;
    if (scratch_bytes_ < state().scratch_bytes ||
        fake_cuda::content_of(scratch_, static_cast<std::size_t>(scratch_bytes_)) == nullptr) {
      return refuse("no memory for activations");
    }
    Work work{.sizes = sizes_, .tensors = {}, .kept = sizes_.at("kept")};
    for (const Tensor& tensor : state().tensors) {
      if (!place(tensor, work)) return false;
    }
    state().runs.push_back({profile_, captured, sizes_, addresses_});
    stale_ = false;
    fake_cuda::enqueue(stream, [work]() mutable {
      for (const Tensor& tensor : state().tensors) {
        if (tensor.on_host) work.tensors.at(tensor.name).data = &work.kept;
      }
      state().kernels(work);
    });
    return true;
  }

 private:
  // What the inputs' shapes, and the value on the host, say the sizes are.
  bool read_sizes() {
    sizes_.clear();
    for (const Tensor& tensor : state().tensors) {
      if (tensor.is_output) continue;
      if (tensor.on_host) {
        const auto address = addresses_.find(tensor.name);
        if (address == addresses_.end()) return refuse(tensor.name + " has no address");
        std::memcpy(&sizes_["kept"], address->second, sizeof(std::int64_t));
        continue;
      }
      const auto dims = dims_.find(tensor.name);
      if (dims == dims_.end()) return refuse(tensor.name + " has no shape");
      for (std::size_t i = 0; i < tensor.dims.size(); ++i) {
        if (fixed(tensor.dims[i])) continue;
        const auto [size, fresh] = sizes_.try_emplace(tensor.dims[i], dims->second.d[i]);
        if (!fresh && size->second != dims->second.d[i]) {
          return refuse(tensor.dims[i] + " differs from input to input");
        }
      }
    }
    if (sizes_["attended"] != sizes_["rows"] + sizes_["cached"]) return refuse("attended is off");
    return true;
  }

  bool place(const Tensor& tensor, Work& work) const {
    const auto address = addresses_.find(tensor.name);
    if (address == addresses_.end() || address->second == nullptr) {
      return refuse(tensor.name + " has no address");
    }
    const Dims dims = getTensorShape(tensor.name.c_str());
    fastdllm::TensorView view;
    view.type = tensor.type;
    view.shape.rank = dims.nbDims;
    std::copy_n(dims.d, dims.nbDims, view.shape.dims.begin());
    std::int64_t bytes = tensor.type == ElementType::int64     ? 8
                         : tensor.type == ElementType::float32 ? 4
                         : tensor.type == ElementType::boolean ? 1
                                                               : 2;
    for (std::int32_t i = 0; i < dims.nbDims; ++i) bytes *= dims.d[i];
    view.data = tensor.on_host
                    ? const_cast<void*>(address->second)
                    : fake_cuda::content_of(address->second, static_cast<std::size_t>(bytes));
    if (view.data == nullptr) return refuse(tensor.name + " lies outside the device's memory");
    work.tensors[tensor.name] = view;
    return true;
  }

  std::int32_t profile_ = 0;
  std::map<std::string, Dims> dims_;
  std::map<std::string, const void*> addresses_;
  Sizes sizes_;
  void* scratch_ = nullptr;
  std::int64_t scratch_bytes_ = 0;
  bool stale_ = true;  // since a shape changed, nothing has run
};

class EnginePart final : public UnusedEngine {
 public:
  EnginePart() { ++state().engines; }
  ~EnginePart() override { --state().engines; }

  IExecutionContext* createExecutionContext(
      ExecutionContextAllocationStrategy strategy) noexcept override {
    if (strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) std::abort();
    return new Handle<IExecutionContext, ContextPart>();
  }
  std::int32_t getNbOptimizationProfiles() const noexcept override {
    return static_cast<std::int32_t>(state().profiles.size());
  }
  Dims getTensorShape(const char* name) const noexcept override {
    return dims_of(find(name), [](const std::string&) { return -1; });
  }
  DataType getTensorDataType(const char* name) const noexcept override {
    return type_of(find(name)->type);
  }
  TensorLocation getTensorLocation(const char* name) const noexcept override {
    return find(name)->on_host ? TensorLocation::kHOST : TensorLocation::kDEVICE;
  }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    return find(name)->is_output ? TensorIOMode::kOUTPUT : TensorIOMode::kINPUT;
  }
  Dims getProfileShape(const char* name, std::int32_t profile,
                       OptProfileSelector select) const noexcept override {
    return dims_of(find(name), [&](const std::string& size) {
      const auto& [least, most] =
          state().profiles[static_cast<std::size_t>(profile)].sizes.at(size);
      return select == OptProfileSelector::kMIN ? least : most;
    });
  }
  std::int32_t getNbIOTensors() const noexcept override {
    return static_cast<std::int32_t>(state().tensors.size());
  }
  const char* getIOTensorName(std::int32_t index) const noexcept override {
    return state().tensors[static_cast<std::size_t>(index)].name.c_str();
  }
  std::int64_t getDeviceMemorySizeForProfileV2(std::int32_t profile) const noexcept override {
    return profile == 0 ? state().scratch_bytes : state().scratch_bytes / 2;
  }
};

class RuntimePart final : public UnusedRuntime {
 public:
  RuntimePart() { ++state().runtimes; }
  ~RuntimePart() override { --state().runtimes; }

  using UnusedRuntime::deserializeCudaEngine;
  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept override {
    if (std::string_view(static_cast<const char*>(blob), size) != engine_content) {
      refuse("magicTag does not match\nand more of this kind");
      return nullptr;
    }
    return new Handle<ICudaEngine, EnginePart>();
  }
};

}  // namespace

State& state() {
  static State made;
  return made;
}

void reset() {
  state() = {};
}

}  // namespace fake_nvinfer

extern "C" {

std::int32_t getInferLibVersion() noexcept {
  return fake_nvinfer::state().version;
}

void* createInferRuntime_INTERNAL(void* logger, std::int32_t version) noexcept {
  using namespace fake_nvinfer;
  fake_nvinfer::logger = static_cast<nvinfer1::ILogger*>(logger);
  if (version != state().version || state().fails_to_start) {
    refuse("CUDA initialization failure with error: 35");
    return nullptr;
  }
  return static_cast<nvinfer1::IRuntime*>(new Handle<nvinfer1::IRuntime, RuntimePart>());
}
}
