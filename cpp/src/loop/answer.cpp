#include "loop/answer.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fastdllm {

Answer::Answer(Canvas& canvas, const GenerationConfig& config, std::vector<std::int32_t> stop_ids,
               const CommitCallback& on_commit)
    : canvas_(canvas), config_(config), stop_ids_(std::move(stop_ids)), on_commit_(on_commit) {
  const auto block_length = static_cast<std::size_t>(canvas.block(0).length());
  positions_.reserve(block_length);
  token_ids_.reserve(block_length);
  confidences_.reserve(block_length);
  committed_.assign(canvas.answer().size(), 1.0);
}

void Answer::begin_pass() noexcept {
  positions_.clear();
  token_ids_.clear();
  confidences_.clear();
}

void Answer::commit(std::int64_t position, std::int32_t token_id, double confidence) {
  canvas_.commit(position, token_id);
  const std::int64_t relative = position - canvas_.answer_start();
  if (relative >= std::ssize(canvas_.answer())) return;
  positions_.push_back(static_cast<std::int32_t>(relative));
  token_ids_.push_back(token_id);
  confidences_.push_back(confidence);
  committed_[static_cast<std::size_t>(relative)] = confidence;
}

bool Answer::report(const PassReport& pass) const {
  if (!on_commit_) return true;
  const std::int64_t start = pass.block.start - canvas_.answer_start();
  const std::int64_t end = pass.block.end - canvas_.answer_start();
  return on_commit_({.step = pass.step,
                     .block = pass.number,
                     .block_start = std::max(start, std::int64_t{0}),
                     .block_end = std::min(end, std::ssize(canvas_.answer())),
                     .block_finished = pass.finished,
                     .refreshed = pass.refreshed,
                     .rows = pass.rows,
                     .positions = positions_,
                     .token_ids = token_ids_,
                     .confidences = confidences_});
}

std::optional<FinishReason> Answer::ended_by_tokens() {
  if (config_.editing_threshold) return std::nullopt;
  const bool by_token = config_.stop_at == StopAt::token;
  if (by_token && holds_stop_token()) return FinishReason::stop;
  if (canvas_.filled_length() < std::ssize(canvas_.answer())) return std::nullopt;
  filled_blocks_end_ = std::ssize(canvas_.answer());
  return holds_stop_token() ? FinishReason::stop : FinishReason::length;
}

std::optional<FinishReason> Answer::ended_by_block(const BlockRange& block) {
  filled_blocks_end_ = block.end - canvas_.answer_start();
  if (holds_stop_token()) return FinishReason::stop;
  // Masks behind the answer only fill up the last block; they are not part of the request.
  if (canvas_.filled_length() < std::ssize(canvas_.answer())) return std::nullopt;
  return FinishReason::length;
}

bool Answer::stops_at(std::int32_t token_id) const noexcept {
  return std::find(stop_ids_.begin(), stop_ids_.end(), token_id) != stop_ids_.end();
}

bool Answer::holds_stop_token() const {
  return !stop_ids_.empty() && canvas_.stopped_length(stop_ids_) > 0;
}

std::span<const std::int32_t> Answer::token_ids(FinishReason reason) const {
  std::int64_t length = canvas_.filled_length();
  if (reason == FinishReason::stop && config_.stop_at == StopAt::block) {
    length = std::min(length, filled_blocks_end_);
  } else if (holds_stop_token()) {
    length = canvas_.stopped_length(stop_ids_);
  }
  return canvas_.answer().first(static_cast<std::size_t>(length));
}

std::vector<double> Answer::logprobs(std::size_t count) const {
  std::vector<double> logarithms(count);
  std::transform(committed_.begin(), committed_.begin() + static_cast<std::ptrdiff_t>(count),
                 logarithms.begin(), [](double c) { return std::log(std::min(c, 1.0)); });
  return logarithms;
}

}  // namespace fastdllm
