#include "rules/sampling.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace fastdllm {
namespace {

enum class Stream : std::uint32_t { token = 0, position = 1, choice = 2 };

double to_uniform(std::uint32_t word) noexcept {
  return (word + 0.5) * 0x1p-32;
}

double gumbel(std::uint32_t word) noexcept {
  return -portable_log(-portable_log(to_uniform(word)));
}

// Not below gumbel(word), at the price of counting zeros: with 1 - u >= 2^-(n + 1),
// -ln(-ln u) <= -ln(1 - u) <= (n + 1) ln 2. The last term covers rounding.
double gumbel_bound(std::uint32_t word) noexcept {
  return (std::countl_zero(~word) + 1) * 0.6931471805599453 + 1e-9;
}

std::array<std::uint32_t, 4> counter_of(std::uint32_t index, const NoiseKey& key, Stream stream) {
  return {index, static_cast<std::uint32_t>(key.position), static_cast<std::uint32_t>(key.pass),
          static_cast<std::uint32_t>(stream)};
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c, std::uint64_t seed) noexcept {
  auto k0 = static_cast<std::uint32_t>(seed);
  auto k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

double portable_log(double x) noexcept {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.7071067811865476) {
    m *= 2.0;
    exponent -= 1;
  }
  const double f = (m - 1.0) / (m + 1.0);
  const double z = f * f;
  double series = 1.0 / 23.0;
  for (int d = 21; d >= 1; d -= 2) series = series * z + 1.0 / d;
  return exponent * 0.6931471805599453 + (2.0 * f) * series;
}

double uniform_confidence(const NoiseKey& key) noexcept {
  return to_uniform(philox(counter_of(0, key, Stream::position), key.seed)[0]);
}

double position_gumbel(const NoiseKey& key) noexcept {
  return gumbel(philox(counter_of(0, key, Stream::choice), key.seed)[0]);
}

std::size_t TokenSampler::choose(std::span<const float> logits, const NoiseKey& key) const {
  const auto mask = static_cast<std::size_t>(options_.mask_token_id);
  const double temperature = options_.temperature;
  std::array<std::uint32_t, 4> words{};
  double best = -std::numeric_limits<double>::infinity();
  std::size_t chosen = logits.size();
  for (std::size_t v = 0; v < logits.size(); ++v) {
    const double logit = logits[v];
    double score = logit;
    if (temperature > 0.0) {
      if (v % 4 == 0) {
        words = philox(counter_of(static_cast<std::uint32_t>(v / 4), key, Stream::token), key.seed);
      }
      // Most tokens cannot win whatever their noise is exactly: no logarithms for them.
      if (logit + temperature * gumbel_bound(words[v % 4]) < best) continue;
      score += temperature * gumbel(words[v % 4]);
    }
    if (score > best && v != mask) {
      best = score;
      chosen = v;
    }
  }
  return chosen;
}

Proposal TokenSampler::propose(std::span<const float> logits, const NoiseKey& key) {
  const auto mask = static_cast<std::size_t>(options_.mask_token_id);
  std::span<const float> kept = logits;
  const auto is_nan = [](float x) { return x != x; };
  if (filter_.drops(logits.size()) && std::none_of(logits.begin(), logits.end(), is_nan)) {
    kept = filter_.keep(logits);
  }
  std::size_t chosen = choose(kept, key);
  if (chosen == logits.size()) {  // no number but the mask token's
    return {mask == 0 ? 1 : 0, std::numeric_limits<double>::quiet_NaN()};
  }

  const bool scaled = options_.processed && options_.temperature > 0.0;
  const auto tempered = [&](double x) { return scaled ? x / options_.temperature : x; };
  const std::span<const float> distribution = options_.processed ? kept : logits;
  double largest = logits[chosen];
  for (const float logit : distribution) largest = std::max(largest, double{logit});
  double total = 0.0;
  for (const float logit : distribution) total += std::exp(tempered(double{logit} - largest));
  const auto probability = [&](float logit) {
    return std::exp(tempered(double{logit} - largest)) / total;
  };
  Proposal proposal{static_cast<std::int32_t>(chosen), probability(logits[chosen]), 0.0, 0.0};
  if (!options_.statistics) return proposal;
  double best = 0.0;
  double second = 0.0;
  for (std::size_t v = 0; v < distribution.size(); ++v) {
    const double p = probability(distribution[v]);
    if (p > 0.0) proposal.entropy -= p * std::log(p);
    if (v == mask || p <= second) continue;
    second = std::min(p, best);
    best = std::max(p, best);
  }
  proposal.margin = best - second;
  return proposal;
}

}  // namespace fastdllm
