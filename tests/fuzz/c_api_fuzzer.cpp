// Calls of the C API in any order with any arguments that C allows: sizes of other headers, NULL,
// negative counts, options out of range, callbacks that call back. Structs lie in memory of exactly
// the size that they are said to have.
#include <fuzzer/FuzzedDataProvider.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "c_api/c_api.hpp"
#include "hashing_session.hpp"
#include "libfuzzer.hpp"

namespace {

using namespace fastdllm;
using fuzzing::require;

PackageInfo small_package(bool block_causal) {
  PackageInfo package;
  package.format_version = 1;
  package.num_layers = package.num_heads = package.num_kv_heads = 1;
  package.head_dim = 2;
  package.hidden_size = 2;
  package.vocab_size = 8;
  package.max_context_length = 24;
  package.mask_token_id = 7;
  package.eos_token_ids = {6};
  if (block_causal) {
    package.attention = AttentionKind::block_causal;
    package.block_length = 4;
    package.threshold_inclusive = false;
  }
  return package;
}

bool is_status(fastdllm_status status) {
  return std::strcmp(fastdllm_status_name(status), "unknown") != 0 && status != FASTDLLM_INTERNAL &&
         status != FASTDLLM_OUT_OF_MEMORY;
}

/// A handle that was made says why it failed, and only then says anything.
template <typename Handle, typename ErrorOf>
void check_made(fastdllm_status status, Handle* handle, const ErrorOf& error_of) {
  require(is_status(status));
  if (handle == nullptr) require(status == FASTDLLM_NULL_ARGUMENT);
  if (handle != nullptr) require((status == FASTDLLM_OK) == (std::strlen(error_of(handle)) == 0));
}

class Program {
 public:
  Program(const std::uint8_t* data, std::size_t size) : input_(data, size) {}
  ~Program() {
    // In both orders: requests outlive engines, and engines requests.
    if (engine_first_) free_engines();
    for (fastdllm_request* request : requests_) fastdllm_request_free(request);
    free_engines();
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void run() {
    open_scripted();
    engine_first_ = input_.ConsumeBool();
    while (input_.remaining_bytes() > 0) step();
  }

 private:
  void step() {
    switch (input_.ConsumeIntegralInRange<int>(0, 11)) {
      case 0: open(); break;
      case 1: open_scripted(); break;
      case 2: close(); break;
      case 3:
      case 4:
      case 5: ask(); break;
      case 6: look(any(requests_)); break;
      case 7: release(); break;
      case 8: logits(); break;
      case 9: facts(); break;
      case 10: defaults(); break;
      default: names(); break;
    }
  }

  template <typename Handle>
  Handle* any(const std::vector<Handle*>& handles) {
    const auto at = input_.ConsumeIntegralInRange<std::size_t>(0, handles.size());
    return at == handles.size() ? nullptr : handles[at];
  }

  std::int64_t number() {
    constexpr std::array<std::int64_t, 12> edges{-1, 0,  1,  2,       4,         8,
                                                 24, 25, -2, 1 << 20, INT64_MAX, INT64_MIN};
    return input_.ConsumeBool() ? input_.ConsumeIntegralInRange<std::int64_t>(-1, 30)
                                : input_.PickValueInArray(edges);
  }

  double real() {
    return input_.ConsumeBool() ? input_.ConsumeFloatingPointInRange<double>(-1.0, 2.0)
                                : input_.ConsumeFloatingPoint<double>();
  }

  /// A struct of the size that it says, that of this header or another; none now and then.
  template <typename T>
  T* sized(const T& value) {
    const auto choice = input_.ConsumeIntegralInRange<int>(0, 15);
    if (choice == 0) return nullptr;
    std::size_t said = sizeof(T);
    if (choice == 1) said = input_.ConsumeIntegralInRange<std::size_t>(0, 5000);
    if (choice == 2) said = input_.ConsumeIntegral<std::size_t>();
    std::vector<std::byte>& memory = memory_.emplace_back();
    // Nobody reads behind struct_size where it is of no header.
    memory.resize(c_api::is_size_of<T>(said) ? said : sizeof(std::size_t));
    std::memcpy(memory.data(), &value, std::min(memory.size(), sizeof(T)));
    std::memcpy(memory.data(), &said, sizeof(said));
    return reinterpret_cast<T*>(memory.data());
  }

  /// Calls `call` with memory that is written as a struct of some size.
  template <typename T, typename Call>
  void written(const Call& call) {
    std::size_t size = sizeof(T);
    if (input_.ConsumeIntegralInRange<int>(0, 7) == 0) {
      size = input_.ConsumeIntegralInRange<std::size_t>(0, 5000);
    }
    std::vector<std::byte> memory(size);
    const bool null = input_.ConsumeIntegralInRange<int>(0, 15) == 0;
    const fastdllm_status status = call(null ? nullptr : reinterpret_cast<T*>(memory.data()), size);
    require(is_status(status));
    if (null) require(status != FASTDLLM_OK);
    if (!null && status == FASTDLLM_OK) {
      std::size_t found = 0;
      std::memcpy(&found, memory.data(), sizeof(found));
      require(found == size);
    }
  }

  /// As many as `count` says, where it says a number that there may be.
  template <typename T>
  const T* array(std::int64_t count, const std::vector<T>& values) {
    if (count < 1 || count > std::ssize(values)) return nullptr;
    auto copy = std::make_shared<std::vector<T>>(values.begin(), values.begin() + count);
    kept_.push_back(copy);
    return copy->data();
  }

  std::vector<std::int32_t> ids() {
    std::vector<std::int32_t> values;
    const auto count = input_.ConsumeIntegralInRange<std::size_t>(0, 26);
    for (std::size_t i = 0; i < count; ++i) {
      values.push_back(input_.ConsumeIntegralInRange<std::int32_t>(-1, 8));
    }
    return values;
  }

  void open_scripted() {
    const PackageInfo package = small_package(input_.ConsumeBool());
    const EngineLimits limits{.max_batch = input_.ConsumeIntegralInRange<std::int64_t>(1, 4),
                              .max_waiting = input_.ConsumeIntegralInRange<std::int64_t>(0, 9)};
    auto handle = std::make_unique<fastdllm_engine>();
    c_api::set_engine(
        *handle,
        handle->owned.emplace(package, std::make_unique<testing::HashingSession>(package), limits));
    engines_.push_back(handle.release());
  }

  void open() {
    fastdllm_engine_options options{};
    require(fastdllm_engine_options_default(&options, sizeof options) == FASTDLLM_OK);
    const std::string text = input_.ConsumeRandomLengthString(8);
    if (input_.ConsumeBool()) options.threads = static_cast<std::int32_t>(number());
    if (input_.ConsumeBool()) options.max_batch = number();
    if (input_.ConsumeBool()) options.device = text.c_str();
    if (input_.ConsumeBool()) options.backend = text.c_str();
    const bool none = input_.ConsumeBool();
    fastdllm_engine* engine = nullptr;
    const fastdllm_status status =
        fastdllm_engine_open(none ? nullptr : "/nowhere/at/all", sized(options), &engine);
    require(status != FASTDLLM_OK);
    check_made(status, engine, fastdllm_engine_error);
    engines_.push_back(engine);
    require(fastdllm_engine_open("/nowhere", nullptr, nullptr) == FASTDLLM_NULL_ARGUMENT);
  }

  // Requests under way end with their engine; those that go on are another engine's.
  void close() {
    if (engines_.empty()) return;
    const auto at = input_.ConsumeIntegralInRange<std::size_t>(0, engines_.size() - 1);
    fastdllm_engine_free(engines_[at]);
    engines_.erase(engines_.begin() + static_cast<std::ptrdiff_t>(at));
    fastdllm_engine_free(nullptr);
  }

  void free_engines() {
    for (fastdllm_engine* engine : engines_) fastdllm_engine_free(engine);
    engines_.clear();
  }

  fastdllm_config config() {
    fastdllm_config config{};
    require(fastdllm_config_default(&config, sizeof config) == FASTDLLM_OK);
    config.max_new_tokens = input_.ConsumeIntegralInRange<std::int64_t>(1, 16);
    for (int changes = input_.ConsumeIntegralInRange<int>(0, 5); changes > 0; --changes) {
      change(config);
    }
    return config;
  }

  void change(fastdllm_config& config) {
    const std::array<std::int64_t*, 10> numbers{&config.max_new_tokens,
                                                &config.block_length,
                                                &config.sub_block_length,
                                                &config.steps,
                                                &config.steps_per_block,
                                                &config.suffix_window,
                                                &config.refresh_interval,
                                                &config.deferred_window,
                                                &config.top_k,
                                                &config.max_post_steps};
    const std::array<double*, 12> reals{
        &config.eps,     &config.threshold,     &config.threshold_decay, &config.factor,
        &config.frechet, &config.entropy_bound, &config.temperature,     &config.top_p,
        &config.min_p,   &config.alg_temp,      &config.cfg_scale,       &config.editing_threshold};
    const std::array<std::int32_t*, 4> choices{&config.cache, &config.remasking, &config.stop_at,
                                               &config.ignore_eos};
    switch (input_.ConsumeIntegralInRange<int>(0, 5)) {
      case 0: *input_.PickValueInArray(numbers) = number(); break;
      case 1: *input_.PickValueInArray(reals) = real(); break;
      case 2:
        *input_.PickValueInArray(choices) = input_.ConsumeIntegralInRange<std::int32_t>(-1, 6);
        break;
      case 3: {
        config.num_stop_token_ids = number();
        config.stop_token_ids = array(config.num_stop_token_ids, ids());
        break;
      }
      case 4: {
        config.num_banned_token_ids = number();
        config.banned_token_ids = array(config.num_banned_token_ids, ids());
        break;
      }
      default: {
        std::vector<fastdllm_logit_bias> biases;
        for (const std::int32_t id : ids()) biases.push_back({id, real()});
        config.num_logit_bias = number();
        config.logit_bias = array(config.num_logit_bias, biases);
        break;
      }
    }
  }

  static bool on_commit(const fastdllm_commit_event* event, void* user_data) {
    require(event->struct_size == sizeof *event);
    for (std::int64_t i = 0; i < event->num_positions; ++i) {
      require(event->token_ids[i] >= 0 && event->token_ids[i] < 7);
      require(event->confidences[i] >= 0.0 && event->confidences[i] <= 1.0 + 1e-9);
    }
    return user_data == nullptr;
  }
  static void on_done(void*) {}

  void ask() {
    fastdllm_engine* engine = any(engines_);
    const std::vector<std::int32_t> values = ids();
    const bool wrong = input_.ConsumeIntegralInRange<int>(0, 15) == 0;
    const std::int64_t count = wrong ? number() : std::ssize(values);
    const std::int32_t* data = wrong ? array(count, values) : values.data();
    fastdllm_callbacks callbacks{};
    require(fastdllm_callbacks_default(&callbacks, sizeof callbacks) == FASTDLLM_OK);
    if (input_.ConsumeBool()) callbacks.on_commit = on_commit;
    if (input_.ConsumeBool()) callbacks.on_done = on_done;
    if (input_.ConsumeIntegralInRange<int>(0, 3) == 0) callbacks.user_data = this;
    constexpr std::array functions{fastdllm_engine_generate, fastdllm_engine_submit,
                                   fastdllm_engine_infill, fastdllm_engine_submit_infill};
    const auto function = input_.PickValueInArray(functions);
    fastdllm_request* request = nullptr;
    const fastdllm_status status =
        function(engine, data, count, sized(config()), sized(callbacks), &request);
    require(is_status(status) && request != nullptr);
    if (status != FASTDLLM_OK) require(std::strlen(fastdllm_request_error(request)) > 0);
    requests_.push_back(request);
  }

  void look(fastdllm_request* request) {
    if (input_.ConsumeBool()) require(is_status(fastdllm_request_cancel(request)));
    if (input_.ConsumeBool()) fastdllm_request_wait_for(request, number() % 2);
    static_cast<void>(fastdllm_request_done(request));
    static_cast<void>(std::strlen(fastdllm_request_error(request)));
    written<fastdllm_stats>([&](fastdllm_stats* stats, std::size_t size) {
      return fastdllm_request_stats(request, stats, size);
    });
    written<fastdllm_result>([&](fastdllm_result* result, std::size_t size) {
      const fastdllm_status status = fastdllm_request_result(request, result, size);
      if (status == FASTDLLM_OK && size == sizeof *result) {
        for (std::int64_t i = 0; i < result->num_tokens; ++i) {
          require(result->token_ids[i] >= 0 && result->token_ids[i] < 8);
          require(result->logprobs[i] <= 1e-6);
        }
      }
      return status;
    });
  }

  void release() {
    if (requests_.empty()) return;
    const auto at = input_.ConsumeIntegralInRange<std::size_t>(0, requests_.size() - 1);
    fastdllm_request_free(requests_[at]);
    requests_.erase(requests_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  void logits() {
    const std::vector<std::int32_t> values = ids();
    const std::vector<std::int32_t> positions = ids();
    fastdllm_output* output = nullptr;
    const fastdllm_status status =
        fastdllm_engine_logits(any(engines_), values.data(), std::ssize(values), positions.data(),
                               std::ssize(positions), number(), &output);
    check_made(status, output, fastdllm_output_error);
    const std::int64_t size = fastdllm_output_size(output);
    const float* found = fastdllm_output_logits(output);
    if (status == FASTDLLM_OK) require(size == 8 * std::ssize(positions));
    for (std::int64_t i = 0; found != nullptr && i < size; ++i) require(found[i] == found[i]);
    require(fastdllm_output_ids(output) == nullptr && fastdllm_output_text(output) == nullptr);
    fastdllm_output_free(output);
  }

  void facts() {
    const fastdllm_engine* engine = any(engines_);
    written<fastdllm_package_info>([&](fastdllm_package_info* info, std::size_t size) {
      return fastdllm_engine_package(engine, info, size);
    });
    static_cast<void>(std::strlen(fastdllm_engine_error(engine)));
    static_cast<void>(std::strlen(fastdllm_engine_backend(engine)));
  }

  void defaults() {
    written<fastdllm_config>(fastdllm_config_default);
    written<fastdllm_callbacks>(fastdllm_callbacks_default);
    written<fastdllm_engine_options>(fastdllm_engine_options_default);
  }

  void names() {
    const auto value = static_cast<std::int32_t>(number());
    for (const auto name : {fastdllm_status_name, fastdllm_cache_mode_name, fastdllm_remasking_name,
                            fastdllm_stop_at_name, fastdllm_finish_reason_name}) {
      require(std::strlen(name(value)) > 0);
    }
  }

  FuzzedDataProvider input_;
  std::vector<fastdllm_engine*> engines_;
  std::vector<fastdllm_request*> requests_;
  std::vector<std::vector<std::byte>> memory_;
  std::vector<std::shared_ptr<void>> kept_;
  bool engine_first_ = false;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Program(data, size).run();
  return 0;
}
