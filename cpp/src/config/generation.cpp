#include "fastdllm/generation.hpp"

#include <algorithm>
#include <string>

#include "config/option_table.hpp"

namespace fastdllm {
namespace {

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_config, message);
}

// Ranks that are no probabilities have nothing to compare with a threshold.
bool ranks_by_probability(Remasking remasking) {
  return remasking == Remasking::low_confidence || remasking == Remasking::random ||
         remasking == Remasking::margin;
}

// Only one of these rules decides how many positions a pass commits. threshold and factor may both
// be set.
void require_one_rule(const GenerationConfig& config) {
  const bool older = config.threshold || config.factor;
  if (config.frechet && (older || config.entropy_bound)) {
    reject(
        "frechet is given beside another rule; expected one of threshold, factor, frechet, "
        "entropy_bound");
  }
  if (config.entropy_bound && older) {
    reject(
        "entropy_bound is given beside another rule; expected one of threshold, factor, "
        "frechet, entropy_bound");
  }
  if ((older || config.frechet) && !ranks_by_probability(config.remasking)) {
    reject(concat("remasking '", name_of(config.remasking),
                  "' goes by a schedule; expected neither threshold nor factor nor frechet"));
  }
  if (config.entropy_bound && config.remasking == Remasking::origin) {
    reject("remasking 'origin' goes by a schedule; expected no entropy_bound");
  }
}

void require_id(std::string_view option, std::int32_t id) {
  if (id < 0) reject(concat(option, " holds token ", id, "; expected ids of at least 0"));
}

void require_biases(const GenerationConfig& config) {
  Range range;
  visit_option<GenerationConfig>("logit_bias", [&](const auto& row) { range = row.range; });
  std::vector<std::int32_t> ids;
  for (const auto& [id, bias] : config.logit_bias) {
    require_id("logit_bias", id);
    require_in_range(concat("logit_bias of token ", id), range, bias);
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end()) {
    reject(concat("logit_bias names token ", *twice, " twice; expected each id once"));
  }
  for (const std::int32_t id : config.banned_token_ids) require_id("banned_token_ids", id);
}

}  // namespace

std::string_view name_of(CacheMode mode) noexcept {
  switch (mode) {
    case CacheMode::none: return "none";
    case CacheMode::prefix: return "prefix";
    case CacheMode::dual: return "dual";
    case CacheMode::automatic: return "auto";
  }
  return "unknown";
}

std::string_view name_of(Remasking remasking) noexcept {
  switch (remasking) {
    case Remasking::low_confidence: return "low_confidence";
    case Remasking::random: return "random";
    case Remasking::margin: return "margin";
    case Remasking::entropy: return "entropy";
    case Remasking::sequential: return "sequential";
    case Remasking::origin: return "origin";
  }
  return "unknown";
}

std::string_view name_of(StopAt stop_at) noexcept {
  switch (stop_at) {
    case StopAt::token: return "token";
    case StopAt::block: return "block";
  }
  return "unknown";
}

std::string_view name_of(FinishReason reason) noexcept {
  switch (reason) {
    case FinishReason::stop: return "stop";
    case FinishReason::length: return "length";
    case FinishReason::abort: return "abort";
  }
  return "unknown";
}

CacheMode parse_cache_mode(std::string_view name) {
  return parse_choice<CacheMode>("cache", name);
}

Remasking parse_remasking(std::string_view name) {
  return parse_choice<Remasking>("remasking", name);
}

StopAt parse_stop_at(std::string_view name) {
  return parse_choice<StopAt>("stop_at", name);
}

void validate(const GenerationConfig& config) {
  require_ranges(config);
  require_biases(config);
  if (config.steps && config.steps_per_block) {
    reject("steps and steps_per_block are both given; expected one of them");
  }
  if (config.threshold_decay > 0.0 && !config.threshold) {
    reject(concat("threshold_decay is ", config.threshold_decay, "; it needs a threshold"));
  }
  require_one_rule(config);
}

}  // namespace fastdllm
