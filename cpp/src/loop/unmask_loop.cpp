#include "loop/unmask_loop.hpp"

#include <algorithm>
#include <utility>

namespace fastdllm {
namespace {

// Fewer reused rows would not be worth the pass that drops what stands behind them.
constexpr std::int64_t least_rows_worth_a_cut = 128;
// A deferred window is anchored anew after so many tokens (arXiv 2601.02076).
constexpr std::int64_t usual_refresh_tokens = 16;

// A cache saves nothing where a refresh leaves hardly more than the block's own rows to compute.
CacheMode best_cache(const PackageInfo& package, const Canvas& canvas) noexcept {
  if (package.attention == AttentionKind::block_causal) return CacheMode::dual;
  const std::int64_t block_length = canvas.block(0).length();
  return (canvas.length() - block_length) * 8 <= block_length ? CacheMode::none : CacheMode::dual;
}

GenerationConfig resolved(GenerationConfig config, const PackageInfo& package,
                          const Canvas& canvas) {
  if (config.cache == CacheMode::automatic) config.cache = best_cache(package, canvas);
  if (config.deferred_window && !config.refresh_tokens) {
    config.refresh_tokens = usual_refresh_tokens;
  }
  return config;
}

std::vector<std::int32_t> stop_ids_of(const PackageInfo& package, const GenerationConfig& config,
                                      bool infills) {
  if (infills || config.ignore_eos) return {};
  return config.stop_token_ids ? *config.stop_token_ids : package.eos_token_ids;
}

}  // namespace

UnmaskLoop::UnmaskLoop(const PackageInfo& package, Canvas canvas, const GenerationConfig& config,
                       bool infills, CommitCallback on_commit)
    : package_(package),
      config_(resolved(config, package, canvas)),
      on_commit_(std::move(on_commit)),
      canvas_(std::move(canvas)),
      answer_(canvas_, config_, stop_ids_of(package, config_, infills), on_commit_),
      planner_(config_.cache, package, canvas_, config_.suffix_window),
      refresh_predicts_first_(package.logits_shift > 0 && config_.cache != CacheMode::none &&
                              package.attention == AttentionKind::bidirectional && !is_deferred()),
      first_token_(refresh_predicts_first_),
      schedule_(config_, canvas_.num_blocks(), first_token_),
      sampler_(config_, package, canvas_.block(0).length()),
      policy_(config_, package.threshold_inclusive) {
  const auto block_length = static_cast<std::size_t>(canvas_.block(0).length());
  scores_.reserve(block_length);
  entropies_.reserve(block_length);
  masked_.reserve(block_length);
  feed_.ids = canvas_.ids();
  feed_.given = canvas_.given();
  feed_.cache_rows = most_cached_rows();
  feed_.logit_rows = this->block_length();
  feed_.wanted = sampler_.wanted();
}

std::int64_t UnmaskLoop::most_cached_rows() const noexcept {
  return is_deferred() && config_.cache != CacheMode::none ? canvas_.length()
                                                           : planner_.most_cached_rows();
}

RunSizes UnmaskLoop::largest_run() const noexcept {
  return {.batch = batch(),
          .rows = planner_.most_fed_rows(),
          .cached = most_cached_rows(),
          .wanted = std::max<std::int64_t>(block_length(), 2)};
}

double UnmaskLoop::most_rows() const noexcept {
  const bool cached = config_.cache != CacheMode::none;
  const bool block_causal = package_.attention == AttentionKind::block_causal;
  const auto length = static_cast<double>(canvas_.length());
  const auto passes = static_cast<double>(
      std::count(canvas_.given().begin(), canvas_.given().end(), std::uint8_t{0}));
  const bool by_block = cached && (block_causal || config_.cache == CacheMode::dual);
  const double refreshes = block_causal ? 1.0 : static_cast<double>(canvas_.num_blocks());
  return (cached ? refreshes * length : 0.0) +
         passes * (by_block ? static_cast<double>(block_length()) : length);
}

std::int64_t UnmaskLoop::rows_to_reuse(const BlockCache& cache) const noexcept {
  const bool block_causal = package_.attention == AttentionKind::block_causal;
  if (!block_causal || config_.cache == CacheMode::none || batch() > 1) return 0;
  std::int64_t most = canvas_.block(0).start;
  // The last committed row's output gives the first new token: it has to be computed again.
  if (package_.seed_token && most == canvas_.prompt_length()) most -= block_length();
  const auto ids = canvas_.ids().first(static_cast<std::size_t>(std::max<std::int64_t>(most, 0)));
  const std::int64_t rows = cache.reusable_rows(ids, block_length());
  return rows < cache.committed_length() && rows < least_rows_worth_a_cut ? 0 : rows;
}

void UnmaskLoop::start(BlockCache& cache) {
  feed_.cache = &cache;
  cache.drop_refreshed();
  const std::int64_t rows = rows_to_reuse(cache);
  if (rows == 0) cache.drop_committed(block_length());
  planner_.set_committed(rows);
  stats_.reused_rows = rows;
  if (rows < cache.committed_length()) {
    stage_ = Stage::cut;
  } else {
    enter_block(0);
  }
}

Feed* UnmaskLoop::next() {
  feed_.pass = plan();
  return feed_.pass == nullptr ? nullptr : &feed_;
}

const Pass* UnmaskLoop::plan() {
  while (!ended_) {
    if (stage_ == Stage::cut) return &planner_.plan_cut(planner_.committed());
    if (stage_ == Stage::commit) {
      if (const Pass* pass = planner_.plan_commit(block_, seed_)) return pass;
      stage_ = Stage::decode;
    }
    if (const Pass* pass = plan_decode()) return pass;
    leave_range();
  }
  return nullptr;
}

void UnmaskLoop::take() {
  const Pass& pass = *feed_.pass;
  ++num_passes_;
  ++(pass.fills_cache() ? stats_.refresh_passes : stats_.step_passes);
  stats_.rows_computed += batch() * std::ssize(pass.rows);
  stats_.logit_rows_computed += batch() * std::ssize(pass.logit_rows);
  stats_.graph_seconds += feed_.seconds;
  stats_.cache_bytes = std::max(stats_.cache_bytes, feed_.cache->bytes());
  switch (stage_) {
    case Stage::cut: return enter_block(0);
    case Stage::commit: return take_commit();
    case Stage::decode: return take_decode();
  }
}

void UnmaskLoop::enter_block(std::int64_t number) {
  if (is_deferred()) {
    const std::span<const std::int64_t> masked =
        canvas_.masked({canvas_.prompt_length(), canvas_.length()});
    if (masked.empty()) {
      ended_ = FinishReason::length;
      return;
    }
    // The row before a position may be what predicts it.
    block_.start = std::max<std::int64_t>(masked[0] - package_.logits_shift, 0);
    const std::int64_t rest = canvas_.length() - masked[0];
    block_.end = masked[0] + std::min(*config_.deferred_window, rest);
  } else {
    if (number == canvas_.num_blocks()) {
      ended_ = FinishReason::length;
      return;
    }
    block_ = canvas_.block(number);
  }
  number_ = number;
  index_ = 0;
  masked_at_start_ = std::ssize(canvas_.masked(block_));
  const bool block_causal = package_.attention == AttentionKind::block_causal;
  // The last finished row may give the block's first token (arXiv 2509.26328).
  seed_ = package_.seed_token && block_.start > 0 && canvas_.is_masked(block_.start);
  // What a block without masks leaves to be committed goes along with the next that has some.
  stage_ = block_causal && masked_at_start_ > 0 ? Stage::commit : Stage::decode;
  first_token_ = refresh_predicts_first_ && canvas_.is_masked(block_.start);
  // A block-causal model's steps_per_block divide its blocks, whatever is given of them.
  shared_ = block_causal && config_.steps_per_block
                ? block_.length()
                : std::max<std::int64_t>(masked_at_start_ - (seed_ ? 1 : 0), 1);
  schedule_.set_first_token(first_token_);
  enter_range(0);
}

void UnmaskLoop::enter_range(std::int64_t index) {
  range_index_ = index;
  range_ = is_deferred() ? block_ : canvas_.sub_block(block_, index);
  fresh_ = true;
  post_steps_ = 0;
}

void UnmaskLoop::leave_range() {
  if (is_deferred()) return enter_block(number_ + 1);
  if (range_index_ + 1 < canvas_.sub_blocks_per_block()) return enter_range(range_index_ + 1);
  ended_ = answer_.ended_by_block(block_);
  if (!ended_) enter_block(number_ + 1);
}

// Where positions may be committed. Deferred: from the left-most masked one to the block_length-th,
// not past an end-of-text token (arXiv 2601.02076).
BlockRange UnmaskLoop::eligible_range() {
  if (!is_deferred()) return range_;
  const std::span<const std::int64_t> masked = canvas_.masked(range_);
  if (masked.empty()) return {range_.end, range_.end};
  const std::size_t most = static_cast<std::size_t>(block_length());
  BlockRange window{masked[0], masked.size() > most ? masked[most] : range_.end};
  for (std::int64_t i = window.start; i < window.end; ++i) {
    if (answer_.stops_at(canvas_.ids()[static_cast<std::size_t>(i)])) window.end = i;
  }
  return window;
}

bool UnmaskLoop::wants_refresh() const {
  return (config_.refresh_interval && steps_since_refresh_ >= *config_.refresh_interval) ||
         (config_.refresh_tokens && commits_since_refresh_ >= *config_.refresh_tokens);
}

// Plans the next pass over the range; nullptr: none is needed any more.
const Pass* UnmaskLoop::plan_decode() {
  if (is_deferred() && !fresh_ && wants_refresh()) return nullptr;  // a window further on
  const std::int64_t of_block = std::ssize(canvas_.masked(block_));
  wanted_ = canvas_.masked(eligible_range());
  masked_count_ = std::ssize(wanted_);
  if (masked_count_ == 0) {
    if (!config_.editing_threshold || fresh_) return nullptr;
    if (++post_steps_ > config_.max_post_steps) return nullptr;
  }
  const bool origin = config_.remasking == Remasking::origin;
  quota_ = schedule_.quota(number_, index_, shared_, of_block);
  while (quota_ == 0 && masked_count_ > 0 && policy_.uses_schedule() && !origin) {
    quota_ = schedule_.quota(number_, ++index_, shared_, of_block);
  }
  const bool only_first = first_token_ && index_ == 0;
  rate_ = only_first ? 1.0 : schedule_.rate(number_, index_, shared_, quota_, masked_count_);
  const std::int64_t behind = planner_.suffix_rows_of_step(block_);
  masked_fraction_ = static_cast<double>(of_block + behind) /
                     static_cast<double>(std::max<std::int64_t>(masked_at_start_ + behind, 1));
  if (only_first) wanted_ = wanted_.first(1);
  if (config_.editing_threshold) wanted_ = canvas_.generated(range_);

  // Nothing stands before position 0: it is predicted by its own row, which every pass feeds.
  const bool unpredicted =
      package_.logits_shift > 0 && wanted_[0] == range_.start && range_.start > 0;
  const bool refresh = fresh_ || wants_refresh() || unpredicted;
  fresh_ = false;
  if (refresh) steps_since_refresh_ = commits_since_refresh_ = 0;
  const bool last = policy_.uses_schedule() && !only_first && !config_.editing_threshold &&
                    quota_ >= masked_count_;
  return &planner_.plan(block_, range_, wanted_, refresh, last);
}

// A pass over finished rows, before the block's own.
void UnmaskLoop::take_commit() {
  answer_.begin_pass();
  const bool complete = feed_.pass->rows.back() + 1 == block_.start;
  const bool seeds = seed_ && complete;
  if (seeds) {
    const std::int64_t position = block_.start;
    const Proposals proposals = sampler_.propose(feed_.predictions, {&position, 1}, step_);
    answer_.commit(position, proposals.token_ids[0], proposals.confidences[0]);
  }
  const bool filled = seeds && canvas_.masked(block_).empty();
  const auto ended = answer_.ended_by_tokens();
  const bool goes_on = report(filled || ended);
  if (seeds) {
    ++step_;
    ended_ = ended;
    stage_ = Stage::decode;
  }
  if (!goes_on) abort();
}

void UnmaskLoop::take_decode() {
  const Proposals proposals = sampler_.propose(feed_.predictions, wanted_, step_);
  const std::int64_t edits = choose_and_commit(proposals);
  const bool unfilled = !canvas_.masked(range_).empty();
  const bool settled = !config_.editing_threshold || (masked_count_ == 0 && edits == 0) ||
                       (!unfilled && post_steps_ >= config_.max_post_steps);
  const bool finished = !unfilled && settled && range_.end == block_.end;
  const auto ended = answer_.ended_by_tokens();
  const bool goes_on = report(finished || ended);
  ++step_;
  ++index_;
  ++steps_since_refresh_;
  ended_ = ended;
  if (!ended_ && !unfilled && settled) leave_range();
  if (!goes_on) abort();
}

bool UnmaskLoop::report(bool block_finished) const {
  return answer_.report({.step = step_,
                         .number = number_,
                         .block = block_,
                         .finished = block_finished,
                         .refreshed = feed_.pass->fills_cache(),
                         .rows = batch() * std::ssize(feed_.pass->rows)});
}

// Returns the number of committed tokens that were overwritten.
std::int64_t UnmaskLoop::choose_and_commit(const Proposals& proposals) {
  answer_.begin_pass();
  scores_.clear();
  entropies_.clear();
  masked_.clear();
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    if (!canvas_.is_masked(wanted_[i])) continue;
    masked_.push_back(i);
    scores_.push_back(proposals.scores[i]);
    entropies_.push_back(proposals.entropies[i]);
  }
  const std::span<const std::size_t> chosen =
      policy_.choose({scores_, entropies_}, quota_, rate_, masked_fraction_);
  commits_since_refresh_ += std::ssize(chosen);
  if (!config_.editing_threshold) {
    for (const std::size_t c : chosen) commit(proposals, masked_[c]);
    return 0;
  }
  std::int64_t edits = 0;
  auto next = chosen.begin();
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    const std::int64_t position = wanted_[i];
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
    commit(proposals, i);
  }
  return edits;
}

void UnmaskLoop::commit(const Proposals& proposals, std::size_t i) {
  answer_.commit(wanted_[i], proposals.token_ids[i], proposals.confidences[i]);
}

GenerationResult UnmaskLoop::result() const {
  const FinishReason reason = ended_.value_or(FinishReason::abort);
  const std::span<const std::int32_t> ids = answer_.token_ids(reason);
  GenerationStats stats = stats_;
  stats.total_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  return {{ids.begin(), ids.end()}, answer_.logprobs(ids.size()), num_passes_, reason, stats};
}

}  // namespace fastdllm
