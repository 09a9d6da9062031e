#include "fastdllm/generation.hpp"

#include <cmath>
#include <initializer_list>
#include <string>

#include "concat.hpp"
#include "fastdllm/error.hpp"

namespace fastdllm {
namespace {

constexpr std::int64_t most_steps = std::int64_t{1} << 20;  // passes of no effect are counted off
constexpr double largest_cfg_scale = 1e6;                   // logits are combined in f32

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_config, message);
}

void require_at_least_one(std::string_view option, std::int64_t value) {
  if (value < 1) reject(concat(option, " is ", value, "; expected at least 1"));
}

void require_steps(std::string_view option, const std::optional<std::int64_t>& value) {
  if (!value) return;
  require_at_least_one(option, *value);
  if (*value > most_steps)
    reject(concat(option, " is ", *value, "; expected at most ", most_steps));
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
  reject(concat(option, " is '", name, "'; expected one of ", known));
}

// Ranks that are no probabilities have nothing to compare with a threshold.
bool ranks_by_probability(Remasking remasking) {
  return remasking == Remasking::low_confidence || remasking == Remasking::random ||
         remasking == Remasking::margin;
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
  return parse("cache", name, {CacheMode::none, CacheMode::prefix, CacheMode::dual});
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
  if ((config.threshold || config.factor) && !ranks_by_probability(config.remasking)) {
    reject(concat("remasking '", name_of(config.remasking),
                  "' goes by a schedule; expected neither threshold nor factor"));
  }
  require_not_negative("temperature", config.temperature);
  if (!(config.top_p > 0.0 && config.top_p <= 1.0)) {
    reject(concat("top_p is ", config.top_p, "; expected a number in (0, 1]"));
  }
  if (config.top_k < 0) reject(concat("top_k is ", config.top_k, "; expected at least 0"));
  require_not_negative("alg_temp", config.alg_temp);
  require_not_negative("cfg_scale", config.cfg_scale);
  if (config.cfg_scale > largest_cfg_scale) {
    reject(concat("cfg_scale is ", config.cfg_scale, "; expected at most ", largest_cfg_scale));
  }
  if (config.editing_threshold &&
      !(*config.editing_threshold >= 0.0 && *config.editing_threshold <= 1.0)) {
    reject(concat("editing_threshold is ", *config.editing_threshold,
                  "; expected a number in [0, 1]"));
  }
  if (config.max_post_steps < 0) {
    reject(concat("max_post_steps is ", config.max_post_steps, "; expected at least 0"));
  }
}

}  // namespace fastdllm
