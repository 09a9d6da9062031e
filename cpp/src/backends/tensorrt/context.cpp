#include "context.hpp"

#include <algorithm>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm::tensorrt {
namespace {

bool within(const Shape& least, const Shape& shape, const Shape& most) noexcept {
  if (shape.rank != most.rank) return false;
  for (std::size_t i = 0; i < static_cast<std::size_t>(shape.rank); ++i) {
    if (shape.dims[i] < least.dims[i] || shape.dims[i] > most.dims[i]) return false;
  }
  return true;
}

}  // namespace

Context::Context(const LoadedEngine& engine, int profile, const cuda::Stream& stream, bool graphs)
    : engine_(&engine),
      profile_(profile),
      stream_(&stream),
      shapes_(engine.inputs().size()),
      output_shapes_(engine.outputs().size()),
      values_(engine.inputs().size()),
      inputs_(engine.inputs().size()),
      outputs_(engine.outputs().size()),
      graphs_(graphs) {
  using enum nvinfer1::ExecutionContextAllocationStrategy;
  context_.reset(engine.engine().createExecutionContext(kUSER_MANAGED));
  require(context_ != nullptr, "making a context", "");
  const auto handle = static_cast<cudaStream_t>(stream.handle());
  require(context_->setOptimizationProfileAsync(profile, handle), "choosing profile",
          std::to_string(profile));
  stream.synchronize();
}

void Context::set_scratch(void* memory, std::int64_t bytes) {
  context_->setDeviceMemoryV2(memory, bytes);
}

bool Context::takes(std::span<const Shape> shapes) const noexcept {
  const auto profile = static_cast<std::size_t>(profile_);
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const Tensor& input = engine_->inputs()[i];
    if (!input.on_host && !within(input.least[profile], shapes[i], input.most[profile])) {
      return false;
    }
  }
  return true;
}

void Context::set_shapes(std::span<const Shape> shapes, std::span<const std::int64_t> values) {
  bool same = known_;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const Tensor& input = engine_->inputs()[i];
    const std::string& name = input.spec.name;
    if (input.on_host) {
      if (known_ && values_[i].value == values[i]) continue;
      values_[i].value = values[i];
      // The address stays, but setting it again makes TensorRT read the value.
      require(context_->setInputTensorAddress(name.c_str(), &values_[i].value), "binding", name);
    } else {
      if (known_ && shapes_[i] == shapes[i]) continue;
      require(context_->setInputShape(name.c_str(), dims_of(shapes[i])), "setting the shape of",
              name);
    }
    same = false;
  }
  if (same) return;
  known_ = false;
  changed();
  std::copy(shapes.begin(), shapes.end(), shapes_.begin());
  require(context_->inferShapes(0, nullptr) == 0, "inferring shapes", "");
  for (std::size_t i = 0; i < output_shapes_.size(); ++i) {
    const std::string& name = engine_->outputs()[i].spec.name;
    const auto shape = shape_of(context_->getTensorShape(name.c_str()));
    const bool sized = shape && std::all_of(shape->dims.begin(), shape->dims.end(),
                                            [](std::int64_t size) { return size >= 0; });
    require(sized, "inferring the shape of", name);
    output_shapes_[i] = *shape;
  }
  known_ = true;
}

void Context::set_input(std::size_t index, void* address) {
  if (inputs_[index] == address) return;
  changed();
  const std::string& name = engine_->inputs()[index].spec.name;
  require(context_->setInputTensorAddress(name.c_str(), address), "binding", name);
  inputs_[index] = address;
}

void Context::set_output(std::size_t index, void* address) {
  if (outputs_[index] == address) return;
  changed();
  const std::string& name = engine_->outputs()[index].spec.name;
  require(context_->setTensorAddress(name.c_str(), address), "binding", name);
  outputs_[index] = address;
}

void Context::set_copies(const Copy& before, const Copy& behind) {
  if (before_ == before && behind_ == behind) return;
  changed();
  before_ = before;
  behind_ = behind;
}

// The first run after a change is never captured: TensorRT brings its own state up to date in it.
void Context::run() {
  if (!graph_ && graphs_ && repeats_) graphs_ = capture();
  if (graph_) {
    graph_->launch(*stream_);
    return;
  }
  require(enqueue(), "a pass", "");
  repeats_ = true;
}

void Context::forget() noexcept {
  changed();
  known_ = false;
  std::fill(inputs_.begin(), inputs_.end(), nullptr);
  std::fill(outputs_.begin(), outputs_.end(), nullptr);
  before_ = behind_ = {};
}

void Context::changed() noexcept {
  graph_.reset();
  repeats_ = false;
}

void Context::require(bool done, const char* what, const std::string& name) const {
  if (done) return;
  throw Error(ErrorCode::backend, concat("TensorRT failed in ", what, name.empty() ? "" : " ", name,
                                         ": ", last_message()));
}

bool Context::enqueue() {
  if (before_.bytes > 0) stream_->copy(before_.target, before_.source, before_.bytes);
  if (!context_->enqueueV3(static_cast<cudaStream_t>(stream_->handle()))) return false;
  if (behind_.bytes > 0) stream_->copy(behind_.target, behind_.source, behind_.bytes);
  return true;
}

// False: CUDA cannot capture this engine, so every run is enqueued without a graph.
bool Context::capture() {
  graph_ = stream_->capture([&] {
    try {
      return enqueue();
    } catch (const Error&) {
      return false;
    }
  });
  if (!graph_) static_cast<void>(last_message());
  return graph_ != nullptr;
}

}  // namespace fastdllm::tensorrt
