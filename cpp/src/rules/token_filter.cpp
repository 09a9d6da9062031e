#include "rules/token_filter.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace fastdllm {
namespace {

constexpr float dropped = -std::numeric_limits<float>::infinity();
// So many of the best tokens are looked at first, then four times as many.
constexpr std::size_t first_prefix = 64;

// Keys rise from the best token to the worst: logits fall, and of equal ones the ids rise. Whole
// numbers select several times as fast as ids that look their logits up.
std::uint64_t rank_key(float logit, std::size_t id) noexcept {
  constexpr std::uint32_t sign = 0x80000000U;
  const auto bits = std::bit_cast<std::uint32_t>(logit + 0.0F);  // -0 equals 0
  const std::uint32_t rising = (bits & sign) != 0 ? ~bits : bits | sign;
  return (std::uint64_t{~rising} << 32U) | id;
}

std::size_t token_of(std::uint64_t key) noexcept {
  return static_cast<std::size_t>(key & 0xFFFFFFFFU);
}

}  // namespace

bool TokenFilter::drops(std::size_t vocab_size) const noexcept {
  return options_.top_p < 1.0 || options_.min_p > 0.0 ||
         (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < vocab_size);
}

std::span<const float> TokenFilter::keep(std::span<const float> logits) {
  if (options_.top_p < 1.0 || options_.top_k > 0) {
    select_best(logits);
  } else {
    kept_.assign(logits.begin(), logits.end());
    kept_[static_cast<std::size_t>(options_.mask_token_id)] = dropped;
  }
  if (options_.min_p > 0.0) drop_below_min_p();
  return kept_;
}

void TokenFilter::select_best(std::span<const float> logits) {
  const auto mask = static_cast<std::size_t>(options_.mask_token_id);
  ranked_.clear();
  for (std::size_t v = 0; v < logits.size(); ++v) {
    if (v != mask) ranked_.push_back(rank_key(logits[v], v));
  }
  kept_.assign(logits.size(), dropped);
  std::size_t most = ranked_.size();
  if (options_.top_k > 0) most = std::min(most, static_cast<std::size_t>(options_.top_k));
  if (options_.top_p < 1.0) {
    keep_probable(logits, most);
  } else {
    keep_first(logits, most);
  }
}

// top_k alone: which tokens they are decides, in whatever order.
void TokenFilter::keep_first(std::span<const float> logits, std::size_t count) {
  const auto end = ranked_.begin() + static_cast<std::ptrdiff_t>(count);
  if (end != ranked_.end()) std::nth_element(ranked_.begin(), end, ranked_.end());
  std::for_each(ranked_.begin(), end,
                [&](std::uint64_t key) { kept_[token_of(key)] = logits[token_of(key)]; });
}

// Keeps the best `most` tokens and of them those before which no more than top_p is cumulated. They
// are sorted as far as that takes.
void TokenFilter::keep_probable(std::span<const float> logits, std::size_t most) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0.0;
  for (const float logit : logits) total += std::exp((double{logit} - largest) / scale_);
  double before = 0.0;
  std::size_t done = 0;
  while (done < most) {
    const std::size_t count = std::min(std::max(first_prefix, 4 * done), most);
    const auto start = ranked_.begin() + static_cast<std::ptrdiff_t>(done);
    const auto end = ranked_.begin() + static_cast<std::ptrdiff_t>(count);
    if (end != ranked_.end()) std::nth_element(start, end, ranked_.end());
    std::sort(start, end);
    for (; done < count; ++done) {
      if (before > options_.top_p) return;
      const std::size_t v = token_of(ranked_[done]);
      kept_[v] = logits[v];
      before += std::exp((double{logits[v]} - largest) / scale_) / total;
    }
  }
}

void TokenFilter::drop_below_min_p() {
  const double best = *std::max_element(kept_.begin(), kept_.end());
  const double least = best + scale_ * std::log(options_.min_p);
  for (float& logit : kept_) {
    if (logit < least) logit = dropped;
  }
}

}  // namespace fastdllm
