// top_k, top_p and min_p in the plainest way, by a sort of the whole vocabulary: what TokenFilter's
// selection has to equal, and what a benchmark compares it with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "rules/token_filter.hpp"

namespace fastdllm::testing {

[[nodiscard]] inline std::vector<float> sorted_filter(std::span<const float> logits,
                                                      const TokenFilter::Options& options) {
  constexpr float dropped = -std::numeric_limits<float>::infinity();
  const double scale = options.temperature > 0.0 ? options.temperature : 1.0;
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::erase(order, options.mask_token_id);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)];
    const float y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0.0;
  for (const float logit : logits) total += std::exp((double{logit} - largest) / scale);
  std::vector<float> kept(logits.size(), dropped);
  double before = 0.0;
  std::int64_t count = 0;
  for (const std::int32_t id : order) {
    const float logit = logits[static_cast<std::size_t>(id)];
    if (options.top_p < 1.0 && before > options.top_p) break;
    if (options.top_k > 0 && count == options.top_k) break;
    kept[static_cast<std::size_t>(id)] = logit;
    before += std::exp((double{logit} - largest) / scale) / total;
    ++count;
  }
  if (options.min_p > 0.0) {
    const double best = *std::max_element(kept.begin(), kept.end());
    for (float& logit : kept) {
      if (logit < best + scale * std::log(options.min_p)) logit = dropped;
    }
  }
  return kept;
}

}  // namespace fastdllm::testing
