#include "unmask_loop.hpp"

#include <chrono>
#include <optional>
#include <vector>

#include "canvas.hpp"
#include "pass.hpp"
#include "sampler.hpp"
#include "unmask_policy.hpp"

namespace fastdllm {
namespace {

class UnmaskLoop {
 public:
  UnmaskLoop(Model& model, std::span<const std::int32_t> prompt, const GenerationConfig& config,
             const CommitCallback& on_commit)
      : model_(model),
        config_(config),
        on_commit_(on_commit),
        canvas_(prompt, config.max_new_tokens, config.block_length, model.package().mask_token_id),
        planner_(config.cache, canvas_.length()),
        schedule_(config, canvas_.num_blocks()),
        sampler_(config, model.package(), canvas_.block(0).length()),
        policy_(config) {
    const auto block_length = static_cast<std::size_t>(canvas_.block(0).length());
    positions_.reserve(block_length);
    token_ids_.reserve(block_length);
    confidences_.reserve(block_length);
    model_.begin({.canvas_length = canvas_.length(),
                  .max_logit_rows = canvas_.block(0).length(),
                  .cache_rows = most_cached_rows(),
                  .guided_prompt_length = config.cfg_scale > 0.0 ? canvas_.prompt_length() : -1,
                  .want_logits = sampler_.needs_logits()});
  }

  GenerationResult run() {
    for (std::int64_t block = 0; block < canvas_.num_blocks(); ++block) {
      if (const std::optional<FinishReason> ended = decode_block(block)) return result(*ended);
    }
    return result(FinishReason::length);
  }

 private:
  // Fills one block. A value ends the whole generation.
  std::optional<FinishReason> decode_block(std::int64_t block) {
    const BlockRange range = canvas_.block(block);
    const std::int64_t steps = schedule_.steps_of(block, range.length());
    for (std::int64_t index = 0;; ++index) {
      const std::span<const std::int64_t> masked = canvas_.masked(range);
      if (masked.empty()) return std::nullopt;
      const bool last = policy_.uses_quota() && steps == 1;

      const Pass& pass = planner_.plan(range, masked, index == 0, last);
      const Predictions predictions = model_.run(pass, canvas_.ids());
      const Proposals proposals = sampler_.propose(predictions, masked, num_passes_);
      const std::span<const std::size_t> chosen =
          policy_.choose(proposals.confidences, schedule_.quota(block, index, range.length()));
      commit(masked, proposals, chosen);

      count(pass);
      const bool finished = chosen.size() == masked.size();
      if (!report(block, range, finished)) return FinishReason::abort;
      if (!config_.ignore_eos && canvas_.stopped_length(model_.package().eos_token_ids) > 0) {
        return FinishReason::stop;
      }
    }
  }

  void commit(std::span<const std::int64_t> masked, const Proposals& proposals,
              std::span<const std::size_t> chosen) {
    positions_.clear();
    token_ids_.clear();
    confidences_.clear();
    for (const std::size_t i : chosen) {
      canvas_.commit(masked[i], proposals.token_ids[i]);
      positions_.push_back(static_cast<std::int32_t>(masked[i] - canvas_.prompt_length()));
      token_ids_.push_back(proposals.token_ids[i]);
      confidences_.push_back(proposals.confidences[i]);
    }
  }

  void count(const Pass& pass) {
    ++num_passes_;
    ++(pass.reuse_cache ? stats_.step_passes : stats_.refresh_passes);
    stats_.rows_computed += model_.batch() * std::ssize(pass.rows);
    stats_.logit_rows_computed += model_.batch() * std::ssize(pass.logit_rows);
  }

  bool report(std::int64_t block, const BlockRange& range, bool finished) const {
    if (!on_commit_) return true;
    return on_commit_({.step = num_passes_ - 1,
                       .block = block,
                       .block_start = range.start - canvas_.prompt_length(),
                       .block_end = range.end - canvas_.prompt_length(),
                       .block_finished = finished,
                       .positions = positions_,
                       .token_ids = token_ids_,
                       .confidences = confidences_});
  }

  GenerationResult result(FinishReason reason) {
    std::int64_t length = canvas_.filled_length();
    if (!config_.ignore_eos) {
      const std::int64_t stopped = canvas_.stopped_length(model_.package().eos_token_ids);
      if (stopped > 0) length = stopped;
    }
    const std::span<const std::int32_t> ids =
        canvas_.new_ids().first(static_cast<std::size_t>(length));
    stats_.graph_seconds = model_.graph_seconds();
    stats_.total_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    stats_.cache_bytes = model_.cache_bytes();
    return {{ids.begin(), ids.end()}, num_passes_, reason, stats_};
  }

  // The most rows that any block's refresh hands back.
  [[nodiscard]] std::int64_t most_cached_rows() const {
    const BlockRange last = canvas_.block(canvas_.num_blocks() - 1);
    switch (config_.cache) {
      case CacheMode::none: return 0;
      case CacheMode::prefix: return last.start;
      case CacheMode::dual: return canvas_.length() - last.length();
    }
    return 0;
  }

  Model& model_;
  const GenerationConfig& config_;
  const CommitCallback& on_commit_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  Canvas canvas_;
  PassPlanner planner_;
  StepSchedule schedule_;
  Sampler sampler_;
  UnmaskPolicy policy_;
  GenerationStats stats_;
  std::int64_t num_passes_ = 0;
  std::vector<std::int32_t> positions_, token_ids_;  // committed by the last pass
  std::vector<double> confidences_;
};

}  // namespace

GenerationResult run_unmask_loop(Model& model, std::span<const std::int32_t> prompt,
                                 const GenerationConfig& config, const CommitCallback& on_commit) {
  return UnmaskLoop(model, prompt, config, on_commit).run();
}

}  // namespace fastdllm
