#include "unmask_loop.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include "answer.hpp"
#include "canvas.hpp"
#include "pass.hpp"
#include "sampler.hpp"
#include "unmask_policy.hpp"

namespace fastdllm {
namespace {

// Fewer reused rows would not be worth the pass that drops what stands behind them.
constexpr std::int64_t least_rows_worth_a_cut = 128;

class UnmaskLoop {
 public:
  UnmaskLoop(Model& model, std::span<const std::int32_t> prompt, const GenerationConfig& config,
             const CommitCallback& on_commit)
      : model_(model),
        package_(model.package()),
        config_(config),
        canvas_(prompt, config.max_new_tokens, layout_of(package_, config), package_.mask_token_id),
        answer_(canvas_, config,
                config.stop_token_ids ? *config.stop_token_ids : package_.eos_token_ids, on_commit),
        planner_(config.cache, package_, canvas_),
        first_token_(package_.logits_shift > 0 && config.cache != CacheMode::none &&
                     package_.attention == AttentionKind::bidirectional),
        schedule_(config, canvas_.num_blocks(), first_token_),
        sampler_(config, package_, canvas_.block(0).length()),
        policy_(config, package_.threshold_inclusive) {
    const auto block_length = static_cast<std::size_t>(canvas_.block(0).length());
    scores_.reserve(block_length);
    entropies_.reserve(block_length);
    masked_.reserve(block_length);
    model_.begin({.canvas_length = canvas_.length(),
                  .max_logit_rows = canvas_.block(0).length(),
                  .cache_rows = planner_.most_cached_rows(),
                  .guided_prompt_length = config.cfg_scale > 0.0 ? canvas_.prompt_length() : -1,
                  .wanted = sampler_.wanted()});
  }

  GenerationResult run() {
    if (package_.attention == AttentionKind::block_causal) reuse_committed();
    for (std::int64_t block = 0; block < canvas_.num_blocks(); ++block) {
      if (const std::optional<FinishReason> ended = decode_block(block)) return result(*ended);
    }
    return result(FinishReason::length);
  }

 private:
  // Goes on from what an earlier request has committed, as far as this prompt begins like it.
  void reuse_committed() {
    if (config_.cache == CacheMode::none) return;
    const std::int64_t block_length = canvas_.block(0).length();
    std::int64_t most = canvas_.block(0).start;
    // The last committed row's output gives the first new token: it has to be computed again.
    if (package_.seed_token && most == canvas_.prompt_length()) most -= block_length;
    std::int64_t rows = model_.reusable_rows(
        canvas_.ids().first(static_cast<std::size_t>(std::max<std::int64_t>(most, 0))),
        block_length);
    if (rows < model_.committed_rows() && rows < least_rows_worth_a_cut) rows = 0;
    if (rows == 0) {
      model_.drop_committed(block_length);
    } else if (rows < model_.committed_rows()) {
      static_cast<void>(run_pass(planner_.plan_cut(rows)));
    }
    planner_.set_committed(rows);
    stats_.reused_rows = rows;
  }

  // Fills one block. A value ends the whole generation.
  std::optional<FinishReason> decode_block(std::int64_t number) {
    const BlockRange block = canvas_.block(number);
    if (const auto ended = prepare(number, block)) return ended;
    std::int64_t index = 0;
    for (std::int64_t i = 0; i < canvas_.sub_blocks_per_block(); ++i) {
      const BlockRange range = canvas_.sub_block(block, i);
      if (const auto ended = decode_range(number, block, range, index)) return ended;
    }
    return answer_.ended_by_block(block);
  }

  // Commits the finished rows that do not go along with the block's first pass; the last of them
  // may give the block's first token (arXiv 2509.26328).
  std::optional<FinishReason> prepare(std::int64_t number, const BlockRange& block) {
    if (package_.attention != AttentionKind::block_causal) return std::nullopt;
    const bool seed = package_.seed_token && block.start > 0 && canvas_.is_masked(block.start);
    while (const Pass* pass = planner_.plan_commit(block, seed)) {
      const Predictions predictions = run_pass(*pass);
      answer_.begin_pass();
      const bool complete = pass->rows.back() + 1 == block.start;
      if (seed && complete) {
        const std::int64_t position = block.start;
        const Proposals proposals = sampler_.propose(predictions, {&position, 1}, step_);
        answer_.commit(position, proposals.token_ids[0], proposals.confidences[0]);
      }
      const bool filled = seed && complete && canvas_.masked(block).empty();
      const auto ended = answer_.ended_by_tokens();
      if (!answer_.report(step_, number, block, filled || ended)) return FinishReason::abort;
      if (seed && complete) {
        ++step_;
        return ended;
      }
    }
    return std::nullopt;
  }

  // Fills a block, or a sub-block of it. index: counts the block's passes for the schedule.
  std::optional<FinishReason> decode_range(std::int64_t number, const BlockRange& block,
                                           const BlockRange& range, std::int64_t& index) {
    std::int64_t post_steps = 0;
    for (bool first = true;;) {
      const std::int64_t of_block = std::ssize(canvas_.masked(block));
      std::span<const std::int64_t> wanted = canvas_.masked(range);
      const auto masked = std::ssize(wanted);
      if (masked == 0 && (!config_.editing_threshold || first)) return std::nullopt;
      if (masked == 0 && ++post_steps > config_.max_post_steps) return std::nullopt;
      const std::int64_t quota = schedule_.quota(number, index, block.length(), of_block);
      const bool origin = config_.remasking == Remasking::origin;
      if (quota == 0 && masked > 0 && policy_.uses_schedule() && !origin) {
        ++index;
        continue;
      }
      const double rate = schedule_.rate(number, index, block.length(), quota, masked);
      const bool only_first = first_token_ && index == 0;
      if (only_first) wanted = wanted.first(1);
      if (config_.editing_threshold) wanted = canvas_.generated(range);

      const bool refresh = first || (package_.logits_shift > 0 && wanted[0] == range.start);
      first = false;
      const bool last =
          policy_.uses_schedule() && !only_first && !config_.editing_threshold && quota >= masked;
      const Pass& pass = planner_.plan(block, range, wanted, refresh, last);
      const Proposals proposals = sampler_.propose(run_pass(pass), wanted, step_);
      const std::int64_t edits =
          choose_and_commit(wanted, proposals, quota, only_first ? 1.0 : rate);

      const bool unfilled = !canvas_.masked(range).empty();
      const bool settled = !config_.editing_threshold || (masked == 0 && edits == 0) ||
                           (!unfilled && post_steps >= config_.max_post_steps);
      const bool finished = !unfilled && settled && range.end == block.end;
      const auto ended = answer_.ended_by_tokens();
      if (!answer_.report(step_, number, block, finished || ended)) return FinishReason::abort;
      ++step_;
      ++index;
      if (ended) return ended;
      if (!unfilled && settled) return std::nullopt;
    }
  }

  // Returns the number of committed tokens that were overwritten.
  std::int64_t choose_and_commit(std::span<const std::int64_t> wanted, const Proposals& proposals,
                                 std::int64_t quota, double rate) {
    answer_.begin_pass();
    scores_.clear();
    entropies_.clear();
    masked_.clear();
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (!canvas_.is_masked(wanted[i])) continue;
      masked_.push_back(i);
      scores_.push_back(proposals.scores[i]);
      entropies_.push_back(proposals.entropies[i]);
    }
    const std::span<const std::size_t> chosen =
        policy_.choose({scores_, entropies_}, quota, rate, 1.0);
    if (!config_.editing_threshold) {
      for (const std::size_t c : chosen) commit(wanted, proposals, masked_[c]);
      return 0;
    }
    std::int64_t edits = 0;
    auto next = chosen.begin();
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const std::int64_t position = wanted[i];
      if (canvas_.is_masked(position)) {
        if (next == chosen.end() || masked_[*next] != i) continue;
        ++next;
      } else {
        const std::int32_t present = canvas_.ids()[static_cast<std::size_t>(position)];
        if (proposals.token_ids[i] == present ||
            proposals.confidences[i] <= *config_.editing_threshold) {
          continue;
        }
        ++edits;
      }
      commit(wanted, proposals, i);
    }
    return edits;
  }

  void commit(std::span<const std::int64_t> wanted, const Proposals& proposals, std::size_t i) {
    answer_.commit(wanted[i], proposals.token_ids[i], proposals.confidences[i]);
  }

  Predictions run_pass(const Pass& pass) {
    ++num_passes_;
    ++(pass.fills_cache() ? stats_.refresh_passes : stats_.step_passes);
    stats_.rows_computed += model_.batch() * std::ssize(pass.rows);
    stats_.logit_rows_computed += model_.batch() * std::ssize(pass.logit_rows);
    return model_.run(pass, canvas_.ids());
  }

  GenerationResult result(FinishReason reason) {
    const std::span<const std::int32_t> ids = answer_.token_ids(reason);
    stats_.graph_seconds = model_.graph_seconds();
    stats_.total_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    stats_.cache_bytes = model_.cache_bytes();
    return {{ids.begin(), ids.end()}, answer_.logprobs(ids.size()), num_passes_, reason, stats_};
  }

  Model& model_;
  const PackageInfo& package_;
  const GenerationConfig& config_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  Canvas canvas_;
  Answer answer_;
  PassPlanner planner_;
  bool first_token_;  // a block's refresh is the only pass whose rows predict its first token
  StepSchedule schedule_;
  Sampler sampler_;
  UnmaskPolicy policy_;
  GenerationStats stats_;
  std::int64_t num_passes_ = 0;
  std::int64_t step_ = 0;                   // passes that proposed tokens: keys the noise
  std::vector<double> scores_, entropies_;  // of the masked positions among the wanted ones
  std::vector<std::size_t> masked_;         // their indices
};

}  // namespace

GenerationResult run_unmask_loop(Model& model, std::span<const std::int32_t> prompt,
                                 const GenerationConfig& config, const CommitCallback& on_commit) {
  return UnmaskLoop(model, prompt, config, on_commit).run();
}

}  // namespace fastdllm
