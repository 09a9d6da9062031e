#include "fastdllm/generation.hpp"

#include <cmath>

#include "concat.hpp"
#include "fastdllm/error.hpp"

namespace fastdllm {
namespace {

constexpr double largest_cfg_scale = 1e6;  // logits are combined in f32

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_config, message);
}

void require_at_least_one(std::string_view option, std::int64_t value) {
  if (value < 1) reject(concat(option, " is ", value, "; expected at least 1"));
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
  for (const CacheMode mode : {CacheMode::none, CacheMode::prefix, CacheMode::dual}) {
    if (name == name_of(mode)) return mode;
  }
  reject(concat("cache is '", name, "'; expected 'none', 'prefix' or 'dual'"));
}

Remasking parse_remasking(std::string_view name) {
  for (const Remasking remasking : {Remasking::low_confidence, Remasking::random}) {
    if (name == name_of(remasking)) return remasking;
  }
  reject(concat("remasking is '", name, "'; expected 'low_confidence' or 'random'"));
}

void validate(const GenerationConfig& config) {
  require_at_least_one("max_new_tokens", config.max_new_tokens);
  require_at_least_one("block_length", config.block_length);
  if (config.steps) require_at_least_one("steps", *config.steps);
  if (config.threshold && !(*config.threshold > 0.0 && *config.threshold <= 1.0)) {
    reject(concat("threshold is ", *config.threshold, "; expected a number in (0, 1]"));
  }
  if (config.factor && !(std::isfinite(*config.factor) && *config.factor > 0.0)) {
    reject(concat("factor is ", *config.factor, "; expected a finite number > 0"));
  }
  require_not_negative("temperature", config.temperature);
  require_not_negative("cfg_scale", config.cfg_scale);
  if (config.cfg_scale > largest_cfg_scale) {
    reject(concat("cfg_scale is ", config.cfg_scale, "; expected at most ", largest_cfg_scale));
  }
}

}  // namespace fastdllm
