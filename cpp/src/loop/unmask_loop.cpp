#include "loop/unmask_loop.hpp"

#include <utility>

namespace fastdllm {

UnmaskLoop::UnmaskLoop(const PackageInfo& package, Canvas canvas, const GenerationConfig& config,
                       bool infills, CommitCallback on_commit)
    : package_(package),
      config_(resolved(config, package, canvas)),
      on_commit_(std::move(on_commit)),
      canvas_(std::move(canvas)),
      answer_(canvas_, config_, stop_ids_of(package, config_, infills), on_commit_),
      cursor_(canvas_, package, config_),
      pacing_(config_, canvas_.num_blocks()),
      editing_(config_),
      planner_(config_.cache, package, canvas_, config_.suffix_window),
      sampler_(config_, package, canvas_.block(0).length()),
      policy_(config_, package.threshold_inclusive),
      needs_(needs_of(package, config_, canvas_, planner_)) {
  const auto block_length = static_cast<std::size_t>(canvas_.block(0).length());
  scores_.reserve(block_length);
  entropies_.reserve(block_length);
  masked_.reserve(block_length);
  writes_.reserve(block_length);
  feed_.ids = canvas_.ids();
  feed_.given = canvas_.given();
  feed_.cache_rows = max_cached_rows();
  feed_.logit_rows = canvas_.block(0).length();
  feed_.needed = sampler_.needed();
}

void UnmaskLoop::start(BlockCache& cache) {
  feed_.cache = &cache;
  cache.drop_refreshed();
  const std::int64_t rows = rows_to_reuse(cache);
  if (rows == 0) cache.drop_committed(canvas_.block(0).length());
  planner_.set_committed(rows);
  tally_.set_reused_rows(rows);
  if (rows < cache.committed_length()) {
    stage_ = Stage::cut;
  } else {
    enter_block(0);
  }
}

// --- Plan a pass, which the scheduler runs ---

const Pass* UnmaskLoop::plan() {
  while (!ended_) {
    if (stage_ == Stage::cut) return &planner_.plan_cut(planner_.committed());
    if (stage_ == Stage::commit) {
      if (const Pass* pass = planner_.plan_commit(cursor_.block(), cursor_.seeds())) return pass;
      stage_ = Stage::decode;
    }
    if (const Pass* pass = plan_decode()) return pass;
    leave_range();
  }
  return nullptr;
}

// The next pass over the range; nullptr: none is needed any more.
const Pass* UnmaskLoop::plan_decode() {
  const BlockRange& range = cursor_.range();
  const bool fresh = cursor_.is_fresh();
  if (cursor_.is_deferred() && !fresh && pacing_.wants_refresh()) return nullptr;
  wanted_ = cursor_.eligible(answer_);
  was_filled_ = wanted_.empty();
  if (was_filled_ && (fresh || !editing_.takes_post_step())) return nullptr;
  pace_ = pacing_.next(canvas_.count_masked(cursor_.block()), std::ssize(wanted_));
  if (pace_.first_alone) wanted_ = wanted_.first(1);
  if (editing_.is_on()) wanted_ = canvas_.generated(range);

  // Nothing stands before position 0: it is predicted by its own row, which every pass feeds.
  const bool unpredicted =
      package_.logits_shift > 0 && wanted_[0] == range.start && range.start > 0;
  const bool refresh = fresh || pacing_.wants_refresh() || unpredicted;
  if (refresh) pacing_.count_refresh();
  cursor_.leave_fresh();
  const bool last = pace_.last && !editing_.is_on();
  return &planner_.plan(cursor_.block(), range, wanted_, refresh, last);
}

// --- Choose and commit from its predictions ---

void UnmaskLoop::take() {
  tally_.count(feed_, batch());
  switch (stage_) {
    case Stage::cut: return enter_block(0);
    case Stage::commit: return take_commit();
    case Stage::decode: return take_decode();
  }
}

// A pass over finished rows, before the block's own.
void UnmaskLoop::take_commit() {
  const BlockRange& block = cursor_.block();
  answer_.begin_pass();
  const bool complete = feed_.pass->rows.back() + 1 == block.start;
  const bool seeds = cursor_.seeds() && complete;
  if (seeds) {
    const Proposals proposals = sampler_.propose(feed_.predictions, {&block.start, 1}, step_);
    answer_.commit(block.start, proposals.token_ids[0], proposals.confidences[0]);
  }
  const bool filled = seeds && canvas_.count_masked(block) == 0;
  const auto ended = answer_.ended_by_tokens();
  const bool goes_on = report(filled || ended);
  if (seeds) {
    ++step_;
    ended_ = ended;
    stage_ = Stage::decode;
  }
  if (!goes_on) abort();
}

// A pass over the range: choose positions, commit them.
void UnmaskLoop::take_decode() {
  const Proposals proposals = sampler_.propose(feed_.predictions, wanted_, step_);
  const std::int64_t fills = choose(proposals);
  const std::int64_t edits = editing_.add_edits(canvas_, wanted_, proposals, writes_);
  commit(proposals);
  const bool filled = canvas_.count_masked(cursor_.range()) == 0;
  const bool settled = filled && editing_.settled(was_filled_, edits);
  const auto ended = answer_.ended_by_tokens();
  const bool goes_on = report(ended || (settled && cursor_.range().end == cursor_.block().end));
  ++step_;
  pacing_.count_pass(fills);
  ended_ = ended;
  if (!ended_ && settled) leave_range();
  if (!goes_on) abort();
}

// Leaves in writes_ the masked positions to be filled. Returns their number.
std::int64_t UnmaskLoop::choose(const Proposals& proposals) {
  scores_.clear();
  entropies_.clear();
  masked_.clear();
  writes_.clear();
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    if (!canvas_.is_masked(wanted_[i])) continue;
    masked_.push_back(i);
    scores_.push_back(proposals.scores[i]);
    entropies_.push_back(proposals.entropies[i]);
  }
  for (const std::size_t c :
       policy_.choose({scores_, entropies_}, pace_.quota, pace_.rate, pace_.masked_fraction)) {
    writes_.push_back(masked_[c]);
  }
  return std::ssize(writes_);
}

void UnmaskLoop::commit(const Proposals& proposals) {
  answer_.begin_pass();
  for (const std::size_t i : writes_) {
    answer_.commit(wanted_[i], proposals.token_ids[i], proposals.confidences[i]);
  }
}

bool UnmaskLoop::report(bool block_finished) const {
  return answer_.report({.step = step_,
                         .number = cursor_.number(),
                         .block = cursor_.block(),
                         .finished = block_finished,
                         .refreshed = feed_.pass->fills_cache(),
                         .rows = batch() * std::ssize(feed_.pass->rows)});
}

// --- From block to block ---

void UnmaskLoop::enter_block(std::int64_t number) {
  if (!cursor_.enter_block(number)) {
    ended_ = FinishReason::length;
    return;
  }
  pacing_.enter_block(cursor_, planner_.suffix_rows_of_step(cursor_.block()));
  editing_.enter_range();
  // What a block without masks leaves to be committed goes along with the next that has some.
  const bool block_causal = package_.attention == AttentionKind::block_causal;
  stage_ = block_causal && cursor_.masked_at_start() > 0 ? Stage::commit : Stage::decode;
}

void UnmaskLoop::leave_range() {
  if (cursor_.enter_next_range()) return editing_.enter_range();
  if (!cursor_.is_deferred()) ended_ = answer_.ended_by_block(cursor_.block());
  if (!ended_) enter_block(cursor_.number() + 1);
}

GenerationResult UnmaskLoop::result() const {
  const FinishReason reason = ended_.value_or(FinishReason::abort);
  const std::span<const std::int32_t> ids = answer_.token_ids(reason);
  return {{ids.begin(), ids.end()},
          answer_.logprobs(ids.size()),
          tally_.num_passes(),
          reason,
          tally_.stats()};
}

}  // namespace fastdllm
