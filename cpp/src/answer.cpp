#include "answer.hpp"

#include <algorithm>
#include <cmath>

namespace fastdllm {

Answer::Answer(Canvas& canvas, const GenerationConfig& config,
               std::span<const std::int32_t> stop_ids, const CommitCallback& on_commit)
    : canvas_(canvas), config_(config), stop_ids_(stop_ids), on_commit_(on_commit) {
  const auto block_length = static_cast<std::size_t>(canvas.block(0).length());
  positions_.reserve(block_length);
  token_ids_.reserve(block_length);
  confidences_.reserve(block_length);
  committed_.resize(static_cast<std::size_t>(config.max_new_tokens));
}

void Answer::begin_pass() noexcept {
  positions_.clear();
  token_ids_.clear();
  confidences_.clear();
}

void Answer::commit(std::int64_t position, std::int32_t token_id, double confidence) {
  canvas_.commit(position, token_id);
  const std::int64_t relative = position - canvas_.prompt_length();
  if (relative >= config_.max_new_tokens) return;
  positions_.push_back(static_cast<std::int32_t>(relative));
  token_ids_.push_back(token_id);
  confidences_.push_back(confidence);
  committed_[static_cast<std::size_t>(relative)] = confidence;
}

bool Answer::report(std::int64_t step, std::int64_t number, const BlockRange& block,
                    bool finished) const {
  if (!on_commit_) return true;
  const std::int64_t start = block.start - canvas_.prompt_length();
  const std::int64_t end = block.end - canvas_.prompt_length();
  return on_commit_({.step = step,
                     .block = number,
                     .block_start = std::max(start, std::int64_t{0}),
                     .block_end = std::min(end, config_.max_new_tokens),
                     .block_finished = finished,
                     .positions = positions_,
                     .token_ids = token_ids_,
                     .confidences = confidences_});
}

std::optional<FinishReason> Answer::ended_by_tokens() {
  if (config_.editing_threshold) return std::nullopt;
  const bool by_token = config_.stop_at == StopAt::token;
  if (by_token && holds_stop_token()) return FinishReason::stop;
  if (canvas_.filled_length() < config_.max_new_tokens) return std::nullopt;
  filled_blocks_end_ = config_.max_new_tokens;
  return holds_stop_token() ? FinishReason::stop : FinishReason::length;
}

std::optional<FinishReason> Answer::ended_by_block(const BlockRange& block) {
  filled_blocks_end_ = block.end - canvas_.prompt_length();
  return holds_stop_token() ? std::optional(FinishReason::stop) : std::nullopt;
}

bool Answer::holds_stop_token() const {
  return !config_.ignore_eos && canvas_.stopped_length(stop_ids_) > 0;
}

std::span<const std::int32_t> Answer::token_ids(FinishReason reason) const {
  std::int64_t length = canvas_.filled_length();
  if (reason == FinishReason::stop && config_.stop_at == StopAt::block) {
    length = std::min(length, filled_blocks_end_);
  } else if (holds_stop_token()) {
    length = canvas_.stopped_length(stop_ids_);
  }
  return canvas_.new_ids().first(static_cast<std::size_t>(length));
}

std::vector<double> Answer::logprobs(std::size_t count) const {
  std::vector<double> logarithms(count);
  std::transform(committed_.begin(), committed_.begin() + static_cast<std::ptrdiff_t>(count),
                 logarithms.begin(), [](double c) { return std::log(std::min(c, 1.0)); });
  return logarithms;
}

}  // namespace fastdllm
