// Options of the C API: fastdllm_config and its companions, as C++ has them.
#include <type_traits>

#include "c_api/c_api.hpp"

namespace fastdllm::c_api {
namespace {

// An option in C and the same in C++, in both directions. Optional ones are FASTDLLM_NONE in C.
struct ToC {
  template <typename T>
  void operator()(std::string_view, T& c, const T& value) const {
    c = value;
  }
  template <typename T>
  void operator()(std::string_view, T& c, const std::optional<T>& value) const {
    c = value.value_or(static_cast<T>(FASTDLLM_NONE));
  }
  template <typename Enum>
    requires std::is_enum_v<Enum>
  void operator()(std::string_view, std::int32_t& c, const Enum& value) const {
    c = static_cast<std::int32_t>(value);
  }
  void operator()(std::string_view, std::int32_t& c, const bool& value) const { c = value ? 1 : 0; }
};

struct FromC {
  template <typename T>
  void operator()(std::string_view, const T& c, T& value) const {
    value = c;
  }
  template <typename T>
  void operator()(std::string_view, const T& c, std::optional<T>& value) const {
    value.reset();
    if (c != static_cast<T>(FASTDLLM_NONE)) value = c;
  }
  template <typename Enum>
    requires std::is_enum_v<Enum>
  void operator()(std::string_view name, const std::int32_t& c, Enum& value) const {
    value = static_cast<Enum>(c);
    if (name_of(value) == "unknown") {
      throw Error(ErrorCode::bad_config, concat(name, " is ", c, "; expected a value of fastdllm_",
                                                name, name == "cache" ? "_mode" : ""));
    }
  }
  void operator()(std::string_view, const std::int32_t& c, bool& value) const { value = c != 0; }
};

// All options but the arrays.
template <typename C, typename Config, typename Move>
void each_option(C& c, Config& config, const Move& move) {
  move("max_new_tokens", c.max_new_tokens, config.max_new_tokens);
  move("block_length", c.block_length, config.block_length);
  move("sub_block_length", c.sub_block_length, config.sub_block_length);
  move("steps", c.steps, config.steps);
  move("steps_per_block", c.steps_per_block, config.steps_per_block);
  move("eps", c.eps, config.eps);
  move("threshold", c.threshold, config.threshold);
  move("threshold_decay", c.threshold_decay, config.threshold_decay);
  move("factor", c.factor, config.factor);
  move("frechet", c.frechet, config.frechet);
  move("entropy_bound", c.entropy_bound, config.entropy_bound);
  move("cache", c.cache, config.cache);
  move("suffix_window", c.suffix_window, config.suffix_window);
  move("refresh_interval", c.refresh_interval, config.refresh_interval);
  move("deferred_window", c.deferred_window, config.deferred_window);
  move("refresh_tokens", c.refresh_tokens, config.refresh_tokens);
  move("remasking", c.remasking, config.remasking);
  move("temperature", c.temperature, config.temperature);
  move("top_p", c.top_p, config.top_p);
  move("top_k", c.top_k, config.top_k);
  move("min_p", c.min_p, config.min_p);
  move("alg_temp", c.alg_temp, config.alg_temp);
  move("cfg_scale", c.cfg_scale, config.cfg_scale);
  move("seed", c.seed, config.seed);
  move("editing_threshold", c.editing_threshold, config.editing_threshold);
  move("max_post_steps", c.max_post_steps, config.max_post_steps);
  move("stop_at", c.stop_at, config.stop_at);
  move("ignore_eos", c.ignore_eos, config.ignore_eos);
}

fastdllm_config default_config() noexcept {
  fastdllm_config c{};
  const GenerationConfig config{};
  each_option(c, config, ToC{});
  c.num_stop_token_ids = FASTDLLM_NONE;
  return c;
}

fastdllm_engine_options default_options() noexcept {
  const SessionOptions session;
  const EngineLimits limits;
  fastdllm_engine_options c{};
  c.threads = session.threads;
  c.cuda_graph = session.cuda_graph ? 1 : 0;
  c.max_batch = limits.max_batch;
  c.max_waiting = limits.max_waiting;
  c.cache_bytes = limits.cache_bytes;
  return c;
}

void assign(std::string& target, const char* given) {
  if (given != nullptr) target = given;
}

}  // namespace

GenerationConfig config_of(const fastdllm_config* given) {
  const fastdllm_config c = read_struct(given, default_config(), "fastdllm_config");
  GenerationConfig config;
  each_option(c, config, FromC{});
  for (const auto& [id, bias] : span_of(c.logit_bias, c.num_logit_bias, "logit_bias")) {
    config.logit_bias.emplace_back(id, bias);
  }
  const auto banned = span_of(c.banned_token_ids, c.num_banned_token_ids, "banned_token_ids");
  config.banned_token_ids.assign(banned.begin(), banned.end());
  if (c.num_stop_token_ids != FASTDLLM_NONE) {
    const auto stop = span_of(c.stop_token_ids, c.num_stop_token_ids, "stop_token_ids");
    config.stop_token_ids.emplace(stop.begin(), stop.end());
  }
  return config;
}

EngineSetup setup_of(const fastdllm_engine_options* given) {
  const fastdllm_engine_options c =
      read_struct(given, default_options(), "fastdllm_engine_options");
  EngineSetup setup;
  setup.session.threads = c.threads;
  setup.session.cuda_graph = c.cuda_graph != 0;
  assign(setup.session.backend, c.backend);
  assign(setup.session.device, c.device);
  assign(setup.session.onnxruntime_library, c.onnxruntime_library);
  assign(setup.session.tensorrt_library, c.tensorrt_library);
  assign(setup.session.cudart_library, c.cudart_library);
  assign(setup.session.tensorrt_engine, c.tensorrt_engine);
  setup.limits.max_batch = c.max_batch;
  setup.limits.max_waiting = c.max_waiting;
  setup.limits.cache_bytes = c.cache_bytes;
  return setup;
}

}  // namespace fastdllm::c_api

using namespace fastdllm::c_api;

fastdllm_status fastdllm_config_default(fastdllm_config* config, std::size_t size) {
  return write_struct(config, size, default_config());
}

fastdllm_status fastdllm_engine_options_default(fastdllm_engine_options* options,
                                                std::size_t size) {
  return write_struct(options, size, default_options());
}

fastdllm_status fastdllm_callbacks_default(fastdllm_callbacks* callbacks, std::size_t size) {
  return write_struct(callbacks, size, fastdllm_callbacks{});
}
