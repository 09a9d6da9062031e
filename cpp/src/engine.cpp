#include "fastdllm/engine.hpp"

#include <atomic>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

#include "canvas.hpp"
#include "concat.hpp"
#include "model.hpp"
#include "unmask_loop.hpp"

namespace fastdllm {
namespace {

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_config, message);
}

void require_ids(const PackageInfo& package, std::span<const std::int32_t> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= package.vocab_size) {
      reject(concat("prompt id ", ids[i], " at index ", i, " is outside the vocabulary [0, ",
                    package.vocab_size, ")"));
    }
  }
}

void require_prompt(const PackageInfo& package, std::span<const std::int32_t> ids,
                    const GenerationConfig& config) {
  require_ids(package, ids);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == package.mask_token_id) {
      reject(concat("prompt id ", ids[i], " at index ", i,
                    " is the mask token; a prompt holds given tokens only"));
    }
  }
  const std::int64_t length = std::ssize(ids);
  if (length < package.min_prompt_length) {
    reject(concat("the prompt has ", length, " tokens; this model needs at least ",
                  package.min_prompt_length));
  }
  if (config.max_new_tokens > package.max_context_length - length) {
    reject(concat("prompt (", length, " tokens) + max_new_tokens (", config.max_new_tokens,
                  ") is longer than the model's context of ", package.max_context_length));
  }
}

// What the options mean depends on the model.
void require_options(const PackageInfo& package, const GenerationConfig& config) {
  const BlockLayout layout = layout_of(package, config);
  if (config.sub_block_length && !layout.absolute) {
    reject("sub_block_length is for block-causal models; this one is bidirectional");
  }
  if (layout.absolute && layout.block_length > package.max_context_length) {
    reject(concat("block_length is ", layout.block_length,
                  "; expected at most the model's context of ", package.max_context_length));
  }
  const bool sub_blocks = layout.sub_block_length < layout.block_length;
  if (config.editing_threshold && (package.logits_shift > 0 || sub_blocks)) {
    reject("editing_threshold needs a model without logit shift and blocks without sub-blocks");
  }
  if (!config.stop_token_ids) return;
  for (const std::int32_t id : *config.stop_token_ids) {
    if (id < 0 || id >= package.vocab_size || id == package.mask_token_id) {
      reject(concat("stop_token_ids holds ", id, "; expected ids in [0, ", package.vocab_size,
                    ") other than the mask token"));
    }
  }
}

void require_supported(const PackageInfo& package) {
  const bool block_causal = package.attention == AttentionKind::block_causal;
  if (package.sub_block_length && !block_causal) {
    throw Error(ErrorCode::bad_package,
                concat("fastdllm.json.model.sub_block_length is ", *package.sub_block_length,
                       "; expected null with attention 'bidirectional'"));
  }
  if (package.seed_token != (block_causal && package.logits_shift > 0)) {
    throw Error(ErrorCode::bad_package,
                concat("fastdllm.json.model.seed_token is ", package.seed_token ? "true" : "false",
                       " with attention '", name_of(package.attention), "' and logits_shift ",
                       package.logits_shift,
                       "; expected true for block_causal with logits_shift 1 and only there"));
  }
}

}  // namespace

struct Engine::State {
  explicit State(PackageInfo package, std::unique_ptr<Session> session)
      : model(std::move(package), std::move(session)) {}

  Model model;
  std::mutex mutex;
  std::atomic<std::thread::id> running{};
};

namespace {

// Serves one call at a time and refuses a call from inside the running one.
class Turn {
 public:
  Turn(std::mutex& mutex, std::atomic<std::thread::id>& running) : running_(running) {
    if (running.load() == std::this_thread::get_id()) {
      reject("the engine was called from its own commit callback; use a second engine there");
    }
    lock_ = std::unique_lock(mutex);
    running_.store(std::this_thread::get_id());
  }
  ~Turn() { running_.store({}); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  std::atomic<std::thread::id>& running_;
  std::unique_lock<std::mutex> lock_;
};

std::unique_ptr<Session> open_graph(const PackageInfo& package, const SessionOptions& options) {
  constexpr int most_threads = 256;
  if (options.threads < 0 || options.threads > most_threads) {
    reject(concat("threads is ", options.threads, "; expected 0 (automatic) to ", most_threads));
  }
  return open_session(package.graph, options);
}

}  // namespace

Engine::Engine(const std::filesystem::path& package, const SessionOptions& options) {
  PackageInfo info = read_package(package);
  require_supported(info);
  std::unique_ptr<Session> session = open_graph(info, options);
  state_ = std::make_unique<State>(std::move(info), std::move(session));
}

Engine::Engine(PackageInfo package, std::unique_ptr<Session> session) {
  require_supported(package);
  state_ = std::make_unique<State>(std::move(package), std::move(session));
}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

GenerationResult Engine::generate(std::span<const std::int32_t> prompt_ids,
                                  const GenerationConfig& config, const CommitCallback& on_commit) {
  validate(config);
  require_options(package(), config);
  require_prompt(package(), prompt_ids, config);
  const Turn turn(state_->mutex, state_->running);
  return run_unmask_loop(state_->model, prompt_ids, config, on_commit);
}

std::vector<float> Engine::logits(std::span<const std::int32_t> ids,
                                  std::span<const std::int32_t> positions,
                                  std::optional<std::int64_t> block_length) {
  const std::int64_t length = std::ssize(ids);
  require_ids(package(), ids);
  if (ids.empty() || length > package().max_context_length) {
    reject(concat("got ", length, " ids; expected 1 to ", package().max_context_length));
  }
  const std::int64_t length_of_block =
      layout_of(package(), {.block_length = block_length}).block_length;
  if (block_length && package().attention != AttentionKind::block_causal) {
    reject("block_length is for block-causal models; this one is bidirectional");
  }
  if (length_of_block < 1) {
    reject(concat("block_length is ", length_of_block, "; expected at least 1"));
  }
  Pass pass;
  if (package().attention == AttentionKind::block_causal) {
    pass.causal_block_length = length_of_block;
  }
  pass.rows.resize(ids.size());
  std::iota(pass.rows.begin(), pass.rows.end(), std::int64_t{0});
  for (const std::int32_t position : positions) {
    if (position < 0 || position >= length) {
      reject(concat("position ", position, " is outside the ", length, " ids"));
    }
    pass.logit_rows.push_back(position);
  }
  if (positions.empty()) return {};

  const Turn turn(state_->mutex, state_->running);
  state_->model.begin({.canvas_length = length,
                       .max_logit_rows = std::ssize(positions),
                       .cache_rows = 0,
                       .wanted = {.logits = true}});
  const Predictions predictions = state_->model.run(pass, ids);
  return {predictions.logits.begin(), predictions.logits.end()};
}

const PackageInfo& Engine::package() const noexcept {
  return state_->model.package();
}

std::string Engine::backend() const {
  return state_->model.session().description();
}

}  // namespace fastdllm
