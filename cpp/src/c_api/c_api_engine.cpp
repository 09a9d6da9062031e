// The engine of the C API.
#include "c_api/c_api.hpp"

namespace fastdllm::c_api {
namespace {

CommitCallback commit_callback(const fastdllm_callbacks& callbacks) {
  const auto call = callbacks.on_commit;
  if (call == nullptr) return {};
  return [call, user_data = callbacks.user_data](const CommitEvent& event) {
    const fastdllm_commit_event passed = event_of(event);
    return call(&passed, user_data);
  };
}

struct Asked {
  const std::int32_t* ids;
  std::int64_t num_ids;
  const fastdllm_config* config;
  const fastdllm_callbacks* callbacks;
};

using Submit = Request (Engine::*)(std::span<const std::int32_t>, const GenerationConfig&,
                                   CommitCallback, DoneCallback);

fastdllm_status submit(fastdllm_engine* engine, Submit member, bool wait, const Asked& asked,
                       fastdllm_request** request) noexcept {
  const fastdllm_status status = make(request, [&](fastdllm_request& handle) {
    Engine& opened = *require_open(engine, "engine").engine;
    if (wait) opened.require_other_thread();
    const GenerationConfig config = config_of(asked.config);
    const fastdllm_callbacks callbacks =
        read_struct(asked.callbacks, fastdllm_callbacks{}, "fastdllm_callbacks");
    follow(handle,
           (opened.*member)(span_of(asked.ids, asked.num_ids, "ids"), config,
                            commit_callback(callbacks),
                            done_callback(callbacks.on_done, callbacks.user_data)),
           [](GenerationResult result) { return Answer{.result = std::move(result)}; });
  });
  return status == FASTDLLM_OK && wait ? settle(**request) : status;
}

std::int64_t or_none(const auto& value) {
  return value.value_or(FASTDLLM_NONE);
}

fastdllm_package_info info_of(const fastdllm_engine& engine) noexcept {
  const PackageInfo& package = engine.engine->package();
  fastdllm_package_info info{};
  info.path = engine.path.c_str();
  info.graph = engine.graph.c_str();
  info.family = package.family.c_str();
  info.precision = package.precision.c_str();
  info.cache_type = name_of(package.cache_type).data();
  info.attention = name_of(package.attention).data();
  info.confidence = name_of(package.confidence).data();
  info.format_version = package.format_version;
  info.opset = package.opset;
  info.num_layers = package.num_layers;
  info.num_heads = package.num_heads;
  info.num_kv_heads = package.num_kv_heads;
  info.head_dim = package.head_dim;
  info.hidden_size = package.hidden_size;
  info.vocab_size = package.vocab_size;
  info.max_context_length = package.max_context_length;
  info.mask_token_id = package.mask_token_id;
  info.eos_token_ids = package.eos_token_ids.data();
  info.num_eos_token_ids = std::ssize(package.eos_token_ids);
  info.pad_token_id = or_none(package.pad_token_id);
  info.bos_token_id = or_none(package.bos_token_id);
  info.logits_shift = package.logits_shift;
  info.block_length = or_none(package.block_length);
  info.sub_block_length = or_none(package.sub_block_length);
  info.min_prompt_length = package.min_prompt_length;
  info.seed_token = package.seed_token ? 1 : 0;
  info.threshold_inclusive = package.threshold_inclusive ? 1 : 0;
  return info;
}

}  // namespace

void set_engine(fastdllm_engine& handle, Engine& engine) {
  handle.path = engine.package().path.string();
  handle.graph = engine.package().graph.string();
  handle.backend = engine.backend();
  handle.engine = &engine;
}

}  // namespace fastdllm::c_api

using namespace fastdllm;
using namespace fastdllm::c_api;

fastdllm_status fastdllm_engine_open(const char* package, const fastdllm_engine_options* options,
                                     fastdllm_engine** engine) {
  return make(engine, [&](fastdllm_engine& handle) {
    const char& folder = require(package, "package");
    const EngineSetup setup = setup_of(options);
    set_engine(handle, handle.owned.emplace(&folder, setup.session, setup.limits));
  });
}

void fastdllm_engine_free(fastdllm_engine* engine) {
  delete engine;
}

const char* fastdllm_engine_error(const fastdllm_engine* engine) {
  return engine == nullptr ? "" : engine->failure.message();
}

const char* fastdllm_engine_backend(const fastdllm_engine* engine) {
  return engine == nullptr ? "" : engine->backend.c_str();
}

fastdllm_status fastdllm_engine_package(const fastdllm_engine* engine, fastdllm_package_info* info,
                                        std::size_t size) {
  if (engine == nullptr) return FASTDLLM_NULL_ARGUMENT;
  if (engine->engine == nullptr) return engine->failure.status();
  return write_struct(info, size, info_of(*engine));
}

fastdllm_status fastdllm_engine_generate(fastdllm_engine* engine, const std::int32_t* prompt_ids,
                                         std::int64_t num_ids, const fastdllm_config* config,
                                         const fastdllm_callbacks* callbacks,
                                         fastdllm_request** request) {
  return submit(engine, &Engine::submit, true, {prompt_ids, num_ids, config, callbacks}, request);
}

fastdllm_status fastdllm_engine_submit(fastdllm_engine* engine, const std::int32_t* prompt_ids,
                                       std::int64_t num_ids, const fastdllm_config* config,
                                       const fastdllm_callbacks* callbacks,
                                       fastdllm_request** request) {
  return submit(engine, &Engine::submit, false, {prompt_ids, num_ids, config, callbacks}, request);
}

fastdllm_status fastdllm_engine_infill(fastdllm_engine* engine, const std::int32_t* canvas_ids,
                                       std::int64_t num_ids, const fastdllm_config* config,
                                       const fastdllm_callbacks* callbacks,
                                       fastdllm_request** request) {
  return submit(engine, &Engine::submit_infill, true, {canvas_ids, num_ids, config, callbacks},
                request);
}

fastdllm_status fastdllm_engine_submit_infill(fastdllm_engine* engine,
                                              const std::int32_t* canvas_ids, std::int64_t num_ids,
                                              const fastdllm_config* config,
                                              const fastdllm_callbacks* callbacks,
                                              fastdllm_request** request) {
  return submit(engine, &Engine::submit_infill, false, {canvas_ids, num_ids, config, callbacks},
                request);
}

fastdllm_status fastdllm_engine_logits(fastdllm_engine* engine, const std::int32_t* ids,
                                       std::int64_t num_ids, const std::int32_t* positions,
                                       std::int64_t num_positions, std::int64_t block_length,
                                       fastdllm_output** output) {
  return make(output, [&](fastdllm_output& handle) {
    Engine& opened = *require_open(engine, "engine").engine;
    std::optional<std::int64_t> length;
    if (block_length != FASTDLLM_NONE) length = block_length;
    handle.value = opened.logits(span_of(ids, num_ids, "ids"),
                                 span_of(positions, num_positions, "positions"), length);
  });
}
