#include "fastdllm/generation.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

constexpr std::int64_t most_steps = std::int64_t{1} << 20;  // passes of no effect are counted off
constexpr double largest_cfg_scale = 1e6;                   // logits are combined in f32
constexpr double largest_bias = 1e6;                        // likewise; banned tokens need no more

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_config, message);
}

void require_at_least_one(std::string_view option, std::int64_t value) {
  if (value < 1) reject(concat(option, " is ", value, "; expected at least 1"));
}

void require_at_most_steps(std::string_view option, std::int64_t value) {
  if (value > most_steps) reject(concat(option, " is ", value, "; expected at most ", most_steps));
}

void require_steps(std::string_view option, const std::optional<std::int64_t>& value) {
  if (!value) return;
  require_at_least_one(option, *value);
  require_at_most_steps(option, *value);
}

void require_optional(std::string_view option, const std::optional<std::int64_t>& value) {
  if (value) require_at_least_one(option, *value);
}

template <typename Kind>
Kind parse(std::string_view option, std::string_view name, std::initializer_list<Kind> kinds) {
  std::string known;
  for (const Kind kind : kinds) {
    if (name == name_of(kind)) return kind;
    known += concat(known.empty() ? "" : ", ", "'", name_of(kind), "'");
  }
  reject(printable(concat(option, " is '", name, "'; expected one of ", known)));
}

// Ranks that are no probabilities have nothing to compare with a threshold.
bool ranks_by_probability(Remasking remasking) {
  return remasking == Remasking::low_confidence || remasking == Remasking::random ||
         remasking == Remasking::margin;
}

// Of these rules one decides how many positions a pass commits; the older two may stand together.
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

void require_in_0_to_1(std::string_view option, double value) {
  if (!(value >= 0.0 && value <= 1.0)) {
    reject(concat(option, " is ", value, "; expected a number in [0, 1]"));
  }
}

void require_id(std::string_view option, std::int32_t id) {
  if (id < 0) reject(concat(option, " holds token ", id, "; expected ids of at least 0"));
}

void require_biases(const GenerationConfig& config) {
  std::vector<std::int32_t> ids;
  for (const auto& [id, bias] : config.logit_bias) {
    require_id("logit_bias", id);
    if (!(std::abs(bias) <= largest_bias)) {
      reject(concat("logit_bias of token ", id, " is ", bias, "; expected a number in [-",
                    largest_bias, ", ", largest_bias, "]"));
    }
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end()) {
    reject(concat("logit_bias names token ", *twice, " twice; expected each id once"));
  }
  for (const std::int32_t id : config.banned_token_ids) require_id("banned_token_ids", id);
}

void require_not_negative(std::string_view option, double value) {
  if (!std::isfinite(value) || value < 0.0) {
    reject(concat(option, " is ", value, "; expected a finite number >= 0"));
  }
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
  using enum CacheMode;
  return parse("cache", name, {none, prefix, dual, automatic});
}

Remasking parse_remasking(std::string_view name) {
  using enum Remasking;
  return parse("remasking", name, {low_confidence, random, margin, entropy, sequential, origin});
}

StopAt parse_stop_at(std::string_view name) {
  return parse("stop_at", name, {StopAt::token, StopAt::block});
}

void validate(const GenerationConfig& config) {
  require_at_least_one("max_new_tokens", config.max_new_tokens);
  require_optional("block_length", config.block_length);
  require_optional("sub_block_length", config.sub_block_length);
  require_steps("steps", config.steps);
  require_steps("steps_per_block", config.steps_per_block);
  if (config.steps && config.steps_per_block) {
    reject("steps and steps_per_block are both given; expected one of them");
  }
  if (config.eps && !(*config.eps > 0.0 && *config.eps < 1.0)) {
    reject(concat("eps is ", *config.eps, "; expected a number in (0, 1)"));
  }
  if (config.threshold && !(*config.threshold > 0.0 && *config.threshold <= 1.0)) {
    reject(concat("threshold is ", *config.threshold, "; expected a number in (0, 1]"));
  }
  if (config.factor && !(std::isfinite(*config.factor) && *config.factor > 0.0)) {
    reject(concat("factor is ", *config.factor, "; expected a finite number > 0"));
  }
  require_in_0_to_1("threshold_decay", config.threshold_decay);
  if (config.threshold_decay > 0.0 && !config.threshold) {
    reject(concat("threshold_decay is ", config.threshold_decay, "; it needs a threshold"));
  }
  if (config.frechet && !(*config.frechet >= 0.0 && *config.frechet < 1.0)) {
    reject(concat("frechet is ", *config.frechet, "; expected a number in [0, 1)"));
  }
  if (config.entropy_bound) require_not_negative("entropy_bound", *config.entropy_bound);
  require_one_rule(config);
  if (config.suffix_window && *config.suffix_window < 0) {
    reject(concat("suffix_window is ", *config.suffix_window, "; expected at least 0"));
  }
  require_optional("refresh_interval", config.refresh_interval);
  require_optional("deferred_window", config.deferred_window);
  require_optional("refresh_tokens", config.refresh_tokens);
  require_not_negative("temperature", config.temperature);
  if (!(config.top_p > 0.0 && config.top_p <= 1.0)) {
    reject(concat("top_p is ", config.top_p, "; expected a number in (0, 1]"));
  }
  if (config.top_k < 0) reject(concat("top_k is ", config.top_k, "; expected at least 0"));
  if (!(config.min_p >= 0.0 && config.min_p < 1.0)) {
    reject(concat("min_p is ", config.min_p, "; expected a number in [0, 1)"));
  }
  require_biases(config);
  require_not_negative("alg_temp", config.alg_temp);
  require_not_negative("cfg_scale", config.cfg_scale);
  if (config.cfg_scale > largest_cfg_scale) {
    reject(concat("cfg_scale is ", config.cfg_scale, "; expected at most ", largest_cfg_scale));
  }
  if (config.editing_threshold) {
    require_in_0_to_1("editing_threshold", *config.editing_threshold);
  }
  if (config.max_post_steps < 0) {
    reject(concat("max_post_steps is ", config.max_post_steps, "; expected at least 0"));
  }
  require_at_most_steps("max_post_steps", config.max_post_steps);
}

}  // namespace fastdllm
