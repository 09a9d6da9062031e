#include "unmask_loop.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include "canvas.hpp"
#include "pass.hpp"
#include "sampler.hpp"
#include "unmask_policy.hpp"

namespace fastdllm {
namespace {

// Fewer reused rows would not be worth the pass that drops what stands behind them.
constexpr std::int64_t least_rows_worth_a_cut = 128;

BlockLayout layout_of(const PackageInfo& package, const GenerationConfig& config) {
  constexpr std::int64_t usual = 32;
  BlockLayout layout;
  layout.block_length = config.block_length.value_or(package.block_length.value_or(usual));
  layout.sub_block_length =
      config.sub_block_length.value_or(package.sub_block_length.value_or(layout.block_length));
  layout.absolute = package.attention == AttentionKind::block_causal;
  return layout;
}

class UnmaskLoop {
 public:
  UnmaskLoop(Model& model, std::span<const std::int32_t> prompt, const GenerationConfig& config,
             const CommitCallback& on_commit)
      : model_(model),
        package_(model.package()),
        config_(config),
        on_commit_(on_commit),
        stop_ids_(config.stop_token_ids ? *config.stop_token_ids : package_.eos_token_ids),
        canvas_(prompt, config.max_new_tokens, layout_of(package_, config), package_.mask_token_id),
        planner_(config.cache, package_, canvas_),
        first_token_(package_.logits_shift > 0 && config.cache != CacheMode::none &&
                     package_.attention == AttentionKind::bidirectional),
        schedule_(config, canvas_.num_blocks() * canvas_.sub_blocks_per_block(), first_token_),
        sampler_(config, package_, canvas_.block(0).length()),
        policy_(config, package_.threshold_inclusive) {
    const auto block_length = static_cast<std::size_t>(canvas_.block(0).length());
    scores_.reserve(block_length);
    masked_.reserve(block_length);
    positions_.reserve(block_length);
    token_ids_.reserve(block_length);
    confidences_.reserve(block_length);
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
    for (std::int64_t i = 0; i < canvas_.sub_blocks_per_block(); ++i) {
      const BlockRange range = canvas_.sub_block(block, i);
      const std::int64_t unit = number * canvas_.sub_blocks_per_block() + i;
      if (const auto ended = decode_range(number, unit, block, range)) return ended;
    }
    return ended_by_block(block);
  }

  // Commits the finished rows that do not go along with the block's first pass; the last of them
  // may give the block's first token (arXiv 2509.26328).
  std::optional<FinishReason> prepare(std::int64_t number, const BlockRange& block) {
    if (package_.attention != AttentionKind::block_causal) return std::nullopt;
    const bool seed = package_.seed_token && block.start > 0 && canvas_.is_masked(block.start);
    while (const Pass* pass = planner_.plan_commit(block, seed)) {
      const Predictions predictions = run_pass(*pass);
      clear_commits();
      const bool complete = pass->rows.back() + 1 == block.start;
      if (seed && complete) {
        const std::int64_t position = block.start;
        const Proposals proposals = sampler_.propose(predictions, {&position, 1}, step_);
        commit(position, proposals, 0);
      }
      if (!report(number, block, false)) return FinishReason::abort;
      if (seed && complete) {
        ++step_;
        return ended_by_tokens();
      }
    }
    return std::nullopt;
  }

  // Fills a block, or a sub-block of it.
  std::optional<FinishReason> decode_range(std::int64_t number, std::int64_t unit,
                                           const BlockRange& block, const BlockRange& range) {
    std::int64_t post_steps = 0;
    bool first = true;
    for (std::int64_t index = 0;; ++index) {
      std::span<const std::int64_t> wanted = canvas_.masked(range);
      const auto masked = std::ssize(wanted);
      if (masked == 0 && (!config_.editing_threshold || first)) return std::nullopt;
      if (masked == 0 && ++post_steps > config_.max_post_steps) return std::nullopt;
      const std::int64_t quota = schedule_.quota(unit, index, range.length(), masked);
      if (quota == 0 && policy_.uses_schedule() && config_.remasking != Remasking::origin) continue;
      const double rate = schedule_.rate(unit, index, range.length(), masked);
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
      if (!report(number, block, finished)) return FinishReason::abort;
      ++step_;
      if (const auto ended = ended_by_tokens()) return ended;
      if (!unfilled && settled) return std::nullopt;
    }
  }

  // Returns the number of committed tokens that were overwritten.
  std::int64_t choose_and_commit(std::span<const std::int64_t> wanted, const Proposals& proposals,
                                 std::int64_t quota, double rate) {
    clear_commits();
    scores_.clear();
    masked_.clear();
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (!canvas_.is_masked(wanted[i])) continue;
      masked_.push_back(i);
      scores_.push_back(proposals.scores[i]);
    }
    const std::span<const std::size_t> chosen = policy_.choose(scores_, quota, rate);
    if (!config_.editing_threshold) {
      for (const std::size_t c : chosen) commit(wanted[masked_[c]], proposals, masked_[c]);
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
      commit(position, proposals, i);
    }
    return edits;
  }

  void clear_commits() {
    positions_.clear();
    token_ids_.clear();
    confidences_.clear();
  }

  // Positions behind the tokens asked for are decoded with their block but not told.
  void commit(std::int64_t position, const Proposals& proposals, std::size_t i) {
    canvas_.commit(position, proposals.token_ids[i]);
    const std::int64_t relative = position - canvas_.prompt_length();
    if (relative >= config_.max_new_tokens) return;
    positions_.push_back(static_cast<std::int32_t>(relative));
    token_ids_.push_back(proposals.token_ids[i]);
    confidences_.push_back(proposals.confidences[i]);
  }

  Predictions run_pass(const Pass& pass) {
    ++num_passes_;
    ++(pass.fills_cache() ? stats_.refresh_passes : stats_.step_passes);
    stats_.rows_computed += model_.batch() * std::ssize(pass.rows);
    stats_.logit_rows_computed += model_.batch() * std::ssize(pass.logit_rows);
    return model_.run(pass, canvas_.ids());
  }

  bool report(std::int64_t number, const BlockRange& block, bool finished) const {
    if (!on_commit_) return true;
    const std::int64_t start = block.start - canvas_.prompt_length();
    const std::int64_t end = block.end - canvas_.prompt_length();
    return on_commit_({.step = step_,
                       .block = number,
                       .block_start = std::max(start, std::int64_t{0}),
                       .block_end = std::min(end, config_.max_new_tokens),
                       .block_finished = finished,
                       .positions = positions_,
                       .token_ids = token_ids_,
                       .confidences = confidences_});
  }

  // Tokens that can still be edited end nothing, nor does a stop token whose block is to be filled.
  std::optional<FinishReason> ended_by_tokens() const {
    if (config_.editing_threshold) return std::nullopt;
    const bool by_token = !config_.ignore_eos && config_.stop_at == StopAt::token;
    if (by_token && canvas_.stopped_length(stop_ids_) > 0) return FinishReason::stop;
    if (canvas_.filled_length() < config_.max_new_tokens) return std::nullopt;
    return holds_stop_token() ? FinishReason::stop : FinishReason::length;
  }

  std::optional<FinishReason> ended_by_block(const BlockRange& block) {
    filled_blocks_end_ = block.end - canvas_.prompt_length();
    return holds_stop_token() ? std::optional(FinishReason::stop) : std::nullopt;
  }

  // Called where every position that counts is filled.
  [[nodiscard]] bool holds_stop_token() const {
    return !config_.ignore_eos && canvas_.stopped_length(stop_ids_) > 0;
  }

  GenerationResult result(FinishReason reason) {
    std::int64_t length = canvas_.filled_length();
    if (reason == FinishReason::stop && config_.stop_at == StopAt::block) {
      length = std::min(length, filled_blocks_end_);
    } else if (holds_stop_token()) {
      length = canvas_.stopped_length(stop_ids_);
    }
    const std::span<const std::int32_t> ids =
        canvas_.new_ids().first(static_cast<std::size_t>(length));
    stats_.graph_seconds = model_.graph_seconds();
    stats_.total_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    stats_.cache_bytes = model_.cache_bytes();
    return {{ids.begin(), ids.end()}, num_passes_, reason, stats_};
  }

  Model& model_;
  const PackageInfo& package_;
  const GenerationConfig& config_;
  const CommitCallback& on_commit_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::span<const std::int32_t> stop_ids_;
  Canvas canvas_;
  PassPlanner planner_;
  bool first_token_;  // a block's refresh is the only pass whose rows predict its first token
  StepSchedule schedule_;
  Sampler sampler_;
  UnmaskPolicy policy_;
  GenerationStats stats_;
  std::int64_t num_passes_ = 0;
  std::int64_t step_ = 0;  // passes that proposed tokens: keys the noise
  std::int64_t filled_blocks_end_ = 0;
  std::vector<double> scores_;       // of the masked positions among the wanted ones
  std::vector<std::size_t> masked_;  // their indices
  std::vector<std::int32_t> positions_, token_ids_;  // committed by the last pass
  std::vector<double> confidences_;
};

}  // namespace

GenerationResult run_unmask_loop(Model& model, std::span<const std::int32_t> prompt,
                                 const GenerationConfig& config, const CommitCallback& on_commit) {
  return UnmaskLoop(model, prompt, config, on_commit).run();
}

}  // namespace fastdllm
