#include "fastdllm/engine.hpp"

#include <algorithm>
#include <new>
#include <numeric>
#include <utility>

#include "cache/canvas.hpp"
#include "fastdllm/options.hpp"
#include "loop/request_memory.hpp"
#include "loop/scheduler.hpp"
#include "loop/unmask_loop.hpp"
#include "rules/sampler.hpp"
#include "support/concat.hpp"

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
                    " is the mask token; a prompt holds given tokens only, infill fills gaps"));
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

void require_canvas(const PackageInfo& package, std::span<const std::int32_t> ids) {
  require_ids(package, ids);
  const std::int64_t length = std::ssize(ids);
  const std::int64_t gap = std::find(ids.begin(), ids.end(), package.mask_token_id) - ids.begin();
  if (gap == length) {
    reject(concat("none of the ", length, " canvas ids is the mask token ", package.mask_token_id,
                  "; expected at least one gap to fill"));
  }
  if (gap < package.min_prompt_length) {
    reject(concat("the first gap is at index ", gap, "; this model needs at least ",
                  package.min_prompt_length, " given tokens before it"));
  }
  if (length > package.max_context_length) {
    reject(concat("the canvas has ", length, " tokens, longer than the model's context of ",
                  package.max_context_length));
  }
}

void require_deferred(const GenerationConfig& config, bool block_causal) {
  if (!config.deferred_window) return;
  const auto refuse = [](std::string_view what) { reject(concat("deferred_window needs ", what)); };
  if (block_causal) refuse("a bidirectional model; this one is block-causal");
  if (goes_by_schedule(config)) {
    refuse("a rule of confidence; expected threshold, factor, frechet or entropy_bound");
  }
  if (config.editing_threshold) refuse("tokens that stay; expected no editing_threshold");
  if (config.stop_at == StopAt::block) refuse("stop_at 'token': there are no blocks to end with");
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
  if (config.suffix_window && layout.absolute) {
    reject("suffix_window is for bidirectional models; a block-causal one never sees the suffix");
  }
  require_deferred(config, layout.absolute);
  const bool sub_blocks = layout.sub_block_length < layout.block_length;
  if (config.editing_threshold && (package.logits_shift > 0 || sub_blocks)) {
    reject("editing_threshold needs a model without logit shift and blocks without sub-blocks");
  }
  require_token_options(package, config);
}

// A compiled engine has limits; without one nothing is too large.
void require_runs(const RunSizes& sizes, const RunSizes& largest) {
  const auto require = [](std::int64_t size, std::int64_t most, std::string_view what,
                          std::string_view option) {
    if (size <= most) return;
    reject(concat("the request needs passes of ", size, " ", what, "; the engine takes ", most,
                  " at most: build it with fastdllm build-engine ", option, " ", size));
  };
  require(sizes.batch, largest.batch, "batch rows", "--max-batch");
  require(sizes.cached, largest.cached, "cached rows", "--max-context");
  require(sizes.rows, largest.rows, "rows", "--max-rows");
  require(sizes.wanted, largest.wanted, "rows of logits", "--rows-per-step");
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
  State(PackageInfo package, std::unique_ptr<Session> session, const EngineLimits& limits)
      : scheduler(std::make_shared<Scheduler>(std::move(package), std::move(session), limits)) {}
  ~State() {
    if (scheduler->serving().is_elsewhere()) {
      new std::shared_ptr<Scheduler>(std::move(scheduler));  // its threads are not here to be ended
    } else {
      scheduler->stop();
    }
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  // `make_canvas` allocates: it is called only after all checks of numbers have passed.
  template <typename MakeCanvas>
  Request submit(const GenerationConfig& config, const RequestMemory& memory, bool infills,
                 const MakeCanvas& make_canvas, CommitCallback on_commit, DoneCallback on_done) {
    Lease lease = scheduler->pool().lease(memory.cache, describe(memory));
    require_canvas_memory(memory, half_of_memory());
    try {
      const PackageInfo& package = scheduler->model().package();
      auto loop = std::make_unique<UnmaskLoop>(package, make_canvas(), config, infills,
                                               std::move(on_commit));
      require_runs(loop->largest_run(), scheduler->largest_run());
      return Request(scheduler->submit(std::move(loop), std::move(lease), std::move(on_done)));
    } catch (const std::bad_alloc&) {
      refuse_memory(memory);
    }
  }

  std::shared_ptr<Scheduler> scheduler;
};

namespace {

std::unique_ptr<Session> open_graph(const PackageInfo& package, const SessionOptions& options) {
  validate(options);
  return open_session(package, options);
}

std::vector<float> logits_of(Scheduler& scheduler, std::span<const std::int32_t> ids,
                             std::span<const std::int32_t> positions, std::int64_t block_length) {
  const PackageInfo& package = scheduler.model().package();
  Pass pass;
  if (package.attention == AttentionKind::block_causal) {
    pass.causal_block_length = block_length;
  }
  pass.rows.resize(ids.size());
  std::iota(pass.rows.begin(), pass.rows.end(), std::int64_t{0});
  for (const std::int32_t position : positions) {
    if (position < 0 || position >= std::ssize(ids)) {
      reject(concat("position ", position, " is outside the ", ids.size(), " ids"));
    }
    pass.logit_rows.push_back(position);
  }
  if (positions.empty()) return {};

  std::vector<float> values;
  scheduler.between_passes([&](Model& model) {
    std::uint64_t clock = 0;
    BlockCache nothing(model.session(), model.package(), 1, clock);
    Feed feed;
    feed.pass = &pass;
    feed.ids = ids;
    feed.cache = &nothing;
    feed.needed.logits = true;
    Feed* feeds[] = {&feed};
    model.run(feeds);
    const auto vocab_size = static_cast<std::size_t>(package.vocab_size);
    const auto asked = feed.predictions.logits.first(positions.size() * vocab_size);  // padded
    values.assign(asked.begin(), asked.end());
  });
  return values;
}

}  // namespace

GenerationResult Request::result() const {
  if (!wait_for({})) require_other_thread();
  if (!on_engine_thread()) job_->settled.wait();
  return job_->answer.get();
}

bool Request::wait_for(std::chrono::nanoseconds time) const {
  if (on_engine_thread()) return done();
  return job_->settled.wait_for(time) == std::future_status::ready;
}

bool Request::done() const {
  return job_->answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

bool Request::on_engine_thread() const noexcept {
  return job_->thread->is_current();
}

void Request::require_other_thread() const {
  job_->thread->require_waiting_makes_sense();
}

void Request::cancel() const noexcept {
  job_->cancelled.store(true);
}

Engine::Engine(const std::filesystem::path& package, const SessionOptions& options,
               const EngineLimits& limits) {
  validate(limits);
  PackageInfo info = read_package(package);
  require_supported(info);
  std::unique_ptr<Session> session = open_graph(info, options);
  state_ = std::make_unique<State>(std::move(info), std::move(session), limits);
}

Engine::Engine(PackageInfo package, std::unique_ptr<Session> session, const EngineLimits& limits) {
  validate(limits);
  require_supported(package);
  state_ = std::make_unique<State>(std::move(package), std::move(session), limits);
}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

GenerationResult Engine::generate(std::span<const std::int32_t> prompt_ids,
                                  const GenerationConfig& config, const CommitCallback& on_commit) {
  require_other_thread();
  return submit(prompt_ids, config, on_commit).result();
}

Request Engine::submit(std::span<const std::int32_t> prompt_ids, const GenerationConfig& config,
                       CommitCallback on_commit, DoneCallback on_done) {
  validate(config);
  require_options(package(), config);
  require_prompt(package(), prompt_ids, config);
  const auto canvas = [&] {
    return Canvas(prompt_ids, config.max_new_tokens, layout_of(package(), config),
                  package().mask_token_id);
  };
  return state_->submit(config, memory_of_prompt(package(), config, std::ssize(prompt_ids)), false,
                        canvas, std::move(on_commit), std::move(on_done));
}

GenerationResult Engine::infill(std::span<const std::int32_t> canvas_ids,
                                const GenerationConfig& config, const CommitCallback& on_commit) {
  require_other_thread();
  return submit_infill(canvas_ids, config, on_commit).result();
}

Request Engine::submit_infill(std::span<const std::int32_t> canvas_ids,
                              const GenerationConfig& config, CommitCallback on_commit,
                              DoneCallback on_done) {
  validate(config);
  require_options(package(), config);
  require_canvas(package(), canvas_ids);
  const auto canvas = [&] {
    return Canvas(canvas_ids, layout_of(package(), config), package().mask_token_id);
  };
  return state_->submit(config, memory_of_canvas(package(), config, canvas_ids), true, canvas,
                        std::move(on_commit), std::move(on_done));
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
  const std::string who = concat("a pass of ", length, " ids");
  static_cast<void>(state_->scheduler->pool().lease({.pairs = length * length}, who));
  try {
    return logits_of(*state_->scheduler, ids, positions, length_of_block);
  } catch (const std::bad_alloc&) {
    reject(concat("there is no memory for a pass of ", length, " ids that hands back ",
                  positions.size(), " positions of ", package().vocab_size, " logits"));
  }
}

void Engine::require_other_thread() const {
  state_->scheduler->serving().require_waiting_makes_sense();
}

const PackageInfo& Engine::package() const noexcept {
  return state_->scheduler->model().package();
}

EngineLoad Engine::load() const {
  return state_->scheduler->load();
}

std::string Engine::backend() const {
  return state_->scheduler->model().session().description();
}

}  // namespace fastdllm
