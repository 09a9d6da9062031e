#include "tensorrt_session.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>
#include <utility>

#include "context.hpp"
#include "engine_record.hpp"
#include "fastdllm/error.hpp"
#include "fastdllm/package.hpp"
#include "loaded_engine.hpp"
#include "staging.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace tensorrt {
namespace {

using Runtime = std::shared_ptr<const cuda::Runtime>;

std::size_t bytes_of(ElementType type, const Shape& shape) {
  return static_cast<std::size_t>(shape.elements()) * size_of(type);
}

std::string text_of(const Shape& shape) {
  std::string text;
  for (int i = 0; i < shape.rank; ++i) {
    text += concat(i == 0 ? "[" : ", ", shape.dims[static_cast<std::size_t>(i)]);
  }
  return text + "]";
}

// No rows have an address all the same, and nothing is allocated for it.
class NoMemory final : public Memory {
 public:
  explicit NoMemory(std::shared_ptr<cuda::DeviceMemory> place) : place_(std::move(place)) {}
  void* data() noexcept override { return place_->data(); }

 private:
  std::shared_ptr<cuda::DeviceMemory> place_;
};

/// K/V lie on the device, where past and present are bound as they are. All other tensors are the
/// host's: a run gathers its inputs in pinned memory, copies them over at once, and likewise brings
/// back the outputs that are bound. TensorRT writes outputs that nobody bound, too.
class TensorRtSession final : public Session {
 public:
  TensorRtSession(Runtime cuda, const Library& library, const EngineFile& file, bool graphs)
      : cuda_(std::move(cuda)),
        description_(concat("tensorrt ", library.version(), " (", cuda_->device_name(), ", ",
                            cuda_->target(), ")")),
        engine_(library, file),
        stream_(cuda_),
        scratch_(cuda_, static_cast<std::size_t>(engine_.scratch_bytes()), "activations"),
        nothing_(std::make_shared<cuda::DeviceMemory>(cuda_, 0, "nothing")),
        in_(cuda_, "inputs"),
        out_(cuda_, "outputs"),
        inputs_(engine_.inputs().size()),
        outputs_(engine_.outputs().size()),
        shapes_(inputs_.size()),
        values_(inputs_.size()) {
    for (const Tensor& input : engine_.inputs()) input_specs_.push_back(input.spec);
    for (const Tensor& output : engine_.outputs()) output_specs_.push_back(output.spec);
    contexts_.reserve(static_cast<std::size_t>(engine_.num_profiles()));
    for (int profile = 0; profile < engine_.num_profiles(); ++profile) {
      contexts_.emplace_back(engine_, profile, stream_, graphs);
      contexts_.back().set_scratch(scratch_.data(), engine_.scratch_bytes());
    }
  }

  ~TensorRtSession() override {
    try {
      cuda_->use();  // TensorRT frees on the thread's GPU
    } catch (const Error&) {
    }
  }

  std::span<const TensorSpec> inputs() const noexcept override { return input_specs_; }
  std::span<const TensorSpec> outputs() const noexcept override { return output_specs_; }
  std::string description() const override { return description_; }
  RunSizes largest_run() const override { return engine_.largest_run(); }
  bool likes_equal_shapes() const noexcept override { return true; }
  std::int64_t free_device_bytes() const override { return cuda_->free_own_bytes(); }

  std::unique_ptr<Memory> allocate_cache(std::size_t bytes) override {
    if (bytes == 0) return std::make_unique<NoMemory>(nothing_);
    return std::make_unique<cuda::DeviceMemory>(cuda_, bytes, "K/V rows");
  }

  void copy_cache(void* target, const void* source, std::size_t bytes) override {
    stream_.copy(target, source, bytes);
  }

  void bind_input(std::size_t index, const TensorView& tensor) override {
    inputs_[index].view = tensor;
    prepared_ = nullptr;
  }

  void bind_output(std::size_t index, const TensorView& tensor) override {
    outputs_[index].view = tensor;
    prepared_ = nullptr;
  }

  void unbind_output(std::size_t index) override {
    outputs_[index].view.reset();
    prepared_ = nullptr;
  }

  void run() override {
    cuda_->use();
    try {
      if (prepared_ == nullptr || sizes_changed()) prepare();
      stage_inputs();
      prepared_->run();
      stream_.synchronize();
    } catch (...) {
      give_up();
      throw;
    }
    hand_out();
  }

 private:
  struct Binding {
    std::optional<TensorView> view;
    std::size_t offset = 0;  // in in_ or out_
    std::size_t bytes = 0;   // there
  };

  // Sizes on the host are bound once and change in place.
  [[nodiscard]] bool sizes_changed() const {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (engine_.inputs()[i].on_host && values_[i] != value_of(i)) return true;
    }
    return false;
  }

  [[nodiscard]] std::int64_t value_of(std::size_t input) const {
    return *static_cast<const std::int64_t*>(inputs_[input].view->data);
  }

  // Brings a context up to date with what is bound; on a run like the one before, nothing changes.
  void prepare() {
    prepared_ = nullptr;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const Tensor& input = engine_.inputs()[i];
      if (!inputs_[i].view) {
        throw Error(ErrorCode::backend, concat("input '", input.spec.name, "' is not bound"));
      }
      shapes_[i] = inputs_[i].view->shape;
      if (input.on_host) values_[i] = value_of(i);
    }
    Context& context = choose();
    context.set_shapes(shapes_, values_);
    require_bound_shapes(context.output_shapes());
    const Copy before = place_inputs();
    const Copy behind = place_outputs(context.output_shapes());
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const Tensor& input = engine_.inputs()[i];
      if (input.on_host) continue;
      context.set_input(i, input.in_cache ? inputs_[i].view->data : in_.device(inputs_[i].offset));
    }
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const bool own = engine_.outputs()[i].in_cache && outputs_[i].view;
      context.set_output(i, own ? outputs_[i].view->data : out_.device(outputs_[i].offset));
    }
    context.set_copies(before, behind);
    prepared_ = &context;
  }

  // The last profile is the narrowest, and made for what fits it.
  [[nodiscard]] Context& choose() {
    for (auto context = contexts_.rbegin(); context != contexts_.rend(); ++context) {
      if (context->takes(shapes_)) return *context;
    }
    std::string sizes;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const Tensor& input = engine_.inputs()[i];
      if (input.on_host || shapes_[i] == Shape{}) continue;
      const Shape& most = input.most.front();
      if (std::equal(shapes_[i].dims.begin(), shapes_[i].dims.end(), most.dims.begin(),
                     std::less_equal<>())) {
        continue;
      }
      sizes = concat(input.spec.name, " is ", text_of(shapes_[i]), "; the engine takes up to ",
                     text_of(most));
      break;
    }
    throw Error(ErrorCode::bad_config,
                concat("no profile of the engine takes this pass: ", sizes,
                       ". Build the engine with larger --max-context, --max-rows, --rows-per-step "
                       "or --max-batch"));
  }

  void require_bound_shapes(std::span<const Shape> shapes) const {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (!outputs_[i].view || outputs_[i].view->shape == shapes[i]) continue;
      throw Error(ErrorCode::backend,
                  concat("output '", output_specs_[i].name, "' is ", text_of(shapes[i]),
                         "; memory was bound for ", text_of(outputs_[i].view->shape)));
    }
  }

  [[nodiscard]] Copy place_inputs() {
    std::size_t end = 0;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const Tensor& input = engine_.inputs()[i];
      if (input.in_cache || input.on_host) continue;
      inputs_[i].offset = end;
      inputs_[i].bytes = bytes_of(input.spec.type, shapes_[i]);
      end += aligned(inputs_[i].bytes);
    }
    in_.reserve(end, end);
    return {in_.device(0), in_.host(0), end};
  }

  // Those that are handed back come first, so that one copy brings them all and nothing else.
  [[nodiscard]] Copy place_outputs(std::span<const Shape> shapes) {
    std::size_t end = 0;
    std::size_t handed_back = 0;
    for (const bool bound : {true, false}) {
      for (std::size_t i = 0; i < outputs_.size(); ++i) {
        const Tensor& output = engine_.outputs()[i];
        if (outputs_[i].view.has_value() != bound || (bound && output.in_cache)) continue;
        outputs_[i].offset = end;
        outputs_[i].bytes = bytes_of(output.spec.type, shapes[i]);
        // Not one place for all: TensorRT may read an output again for another.
        end += aligned(std::max<std::size_t>(outputs_[i].bytes, 1));
      }
      if (bound) handed_back = end;
    }
    out_.reserve(handed_back, end);
    return {out_.host(0), out_.device(0), handed_back};
  }

  void stage_inputs() {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const Tensor& input = engine_.inputs()[i];
      if (input.in_cache || input.on_host) continue;
      std::memcpy(in_.host(inputs_[i].offset), inputs_[i].view->data, inputs_[i].bytes);
    }
  }

  void hand_out() {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      if (!outputs_[i].view || engine_.outputs()[i].in_cache) continue;
      std::memcpy(outputs_[i].view->data, out_.host(outputs_[i].offset), outputs_[i].bytes);
    }
  }

  // Nothing that failed is left under way or relied on.
  void give_up() noexcept {
    prepared_ = nullptr;
    try {
      stream_.synchronize();
    } catch (const Error&) {  // the first error is the one to tell
    }
    for (Context& context : contexts_) context.forget();
  }

  Runtime cuda_;
  std::string description_;
  LoadedEngine engine_;
  cuda::Stream stream_;
  cuda::DeviceMemory scratch_;
  std::shared_ptr<cuda::DeviceMemory> nothing_;
  Staging in_, out_;
  std::vector<Context> contexts_;  // by profile
  std::vector<TensorSpec> input_specs_, output_specs_;
  std::vector<Binding> inputs_, outputs_;
  std::vector<Shape> shapes_;         // of the inputs of the run under way
  std::vector<std::int64_t> values_;  // of those on the host
  Context* prepared_ = nullptr;       // for what is bound
};

}  // namespace
}  // namespace tensorrt

bool has_tensorrt() noexcept {
  return true;
}

bool finds_tensorrt_engine(const PackageInfo& package, const SessionOptions& options,
                           const Device& device) {
  if (!options.tensorrt_engine.empty()) return true;
  const auto cuda = cuda::Runtime::open(options.cudart_library, device.index);
  std::error_code ignored;
  return std::filesystem::exists(tensorrt::engine_path(package, cuda->target()), ignored);
}

std::unique_ptr<Session> open_tensorrt_session(const PackageInfo& package,
                                               const SessionOptions& options,
                                               const Device& device) {
  using namespace tensorrt;
  auto cuda = cuda::Runtime::open(options.cudart_library, device.index);
  const std::filesystem::path path = options.tensorrt_engine.empty()
                                         ? engine_path(package, cuda->target())
                                         : std::filesystem::path(options.tensorrt_engine);
  const EngineFile file = read_engine_record(path, package, cuda->target(), cuda->device_name());
  const Library library(options.tensorrt_library);
  require_version(file, library.version());
  return std::make_unique<TensorRtSession>(std::move(cuda), library, file, options.cuda_graph);
}

}  // namespace fastdllm
