#include "loaded_engine.hpp"

#include <algorithm>
#include <string_view>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"
#include "support/mapped_file.hpp"

namespace fastdllm::tensorrt {
namespace {

[[noreturn]] void refuse(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::bad_package, concat(where, ": ", message));
}

}  // namespace

LoadedEngine::LoadedEngine(const Library& library, const EngineFile& file) {
  const std::string where = file.path.string();
  static_cast<void>(last_message());
  runtime_ = library.create_runtime();
  if (runtime_ == nullptr) {
    throw Error(ErrorCode::backend, concat("TensorRT does not start: ", last_message()));
  }
  {
    const MappedFile content(file.path);
    engine_.reset(runtime_->deserializeCudaEngine(content.data(), content.size()));
  }
  if (engine_ == nullptr) {
    throw Error(
        ErrorCode::backend,
        concat(where, ": TensorRT ", library.version(), " refuses the engine: ", last_message(),
               "; if the file is whole, run: fastdllm build-engine ", file.package));
  }
  num_profiles_ = engine_->getNbOptimizationProfiles();
  if (num_profiles_ < 1) refuse(where, "has no optimization profile; expected at least 1");
  read_tensors(where);
  read_sizes(where);
}

void LoadedEngine::read_tensors(const std::string& where) {
  for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
    const char* name = engine_->getIOTensorName(i);
    const bool is_input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
    const auto type = element_type(engine_->getTensorDataType(name));
    const auto shape = shape_of(engine_->getTensorShape(name));
    if (!type || !shape) refuse(where, concat("'", name, "' has a type or rank of no contract"));
    Tensor tensor;
    tensor.spec = {name, *type, {shape->dims.begin(), shape->dims.begin() + shape->rank}};
    const std::string_view view(name);
    tensor.in_cache = view.starts_with("past_key_values.") || view.starts_with("present.");
    tensor.on_host = engine_->getTensorLocation(name) == nvinfer1::TensorLocation::kHOST;
    const bool is_size = is_input && *type == ElementType::int64 && *shape == Shape{1};
    if (tensor.on_host && !is_size) {
      refuse(where, concat("'", name, "' lies on the host; expected that of one size only"));
    }
    for (int profile = 0; is_input && profile < num_profiles_; ++profile) {
      using enum nvinfer1::OptProfileSelector;
      const auto least = shape_of(engine_->getProfileShape(name, profile, kMIN));
      const auto most = shape_of(engine_->getProfileShape(name, profile, kMAX));
      if (!least || !most) refuse(where, concat("'", name, "' has no shapes in a profile"));
      tensor.least.push_back(*least);
      tensor.most.push_back(*most);
    }
    (is_input ? inputs_ : outputs_).push_back(std::move(tensor));
  }
}

std::int64_t LoadedEngine::largest(const std::string& input, std::size_t dimension,
                                   const std::string& where) const {
  const auto found = std::find_if(inputs_.begin(), inputs_.end(), [&](const Tensor& tensor) {
    return tensor.spec.name == input && tensor.spec.shape.size() > dimension;
  });
  if (found == inputs_.end()) refuse(where, concat("has no input '", input, "'"));
  std::int64_t size = 0;
  for (const Shape& shape : found->most) size = std::max(size, shape.dims[dimension]);
  return size;
}

void LoadedEngine::read_sizes(const std::string& where) {
  largest_run_ = {.batch = largest("input_ids", 0, where),
                  .rows = largest("input_ids", 1, where),
                  .cached = largest("past_key_values.0.key", 2, where),
                  .wanted = largest("logit_indices", 1, where)};
  if (largest_run_.wanted < 2) {
    refuse(where,
           "gives the predictions of 1 row; expected 2 at least: build it with "
           "--rows-per-step 2 or more");
  }
}

std::int64_t LoadedEngine::scratch_bytes() const noexcept {
  std::int64_t most = 0;
  for (int profile = 0; profile < num_profiles_; ++profile) {
    most = std::max(most, engine_->getDeviceMemorySizeForProfileV2(profile));
  }
  return most;
}

}  // namespace fastdllm::tensorrt
