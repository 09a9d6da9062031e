// Seeded noise and the proposal of a token from a row of logits. The noise depends on (seed,
// position, pass, token) only and is the same on every platform: integer arithmetic plus a
// logarithm made of IEEE additions, multiplications and divisions.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "rules/token_filter.hpp"

namespace fastdllm {

/// Philox4x32-10 (Salmon et al., SC 2011): four 32-bit words from a counter and a key.
[[nodiscard]] std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                  std::uint64_t seed) noexcept;

/// Natural logarithm of a positive normal number, without libm, within 2 ulp of it.
[[nodiscard]] double portable_log(double x) noexcept;

/// Where a draw stands. position: absolute in the canvas; pass: within the request, from 0.
struct NoiseKey {
  std::uint64_t seed = 0;
  std::int64_t position = 0;
  std::int64_t pass = 0;
};

/// Uniform in (0, 1): the rank of a position under random remasking.
[[nodiscard]] double uniform_confidence(const NoiseKey& key) noexcept;
/// Gumbel noise of a position, for a choice among positions at a temperature.
[[nodiscard]] double position_gumbel(const NoiseKey& key) noexcept;

struct Proposal {
  std::int32_t token_id = 0;
  double confidence = 0.0;  ///< probability of token_id; NaN when a logit is NaN
  double margin = 0.0;      ///< the best token's probability minus the next best one's, mask aside
  double entropy = 0.0;     ///< nats
};

/// Proposes tokens from rows of logits; scratch memory is kept between rows.
class TokenSampler {
 public:
  struct Options {
    std::int32_t mask_token_id = 0;  ///< takes part in the softmax, is never proposed
    double temperature = 0.0;        ///< 0 = arg-max, else a Gumbel-max sample
    double top_p = 1.0;              ///< top_p, top_k, min_p: see TokenFilter
    std::int64_t top_k = 0;
    double min_p = 0.0;
    bool processed = false;   ///< probabilities are those of the distribution sampled from
    bool statistics = false;  ///< fill margin and entropy
  };
  explicit TokenSampler(const Options& options)
      : options_(options),
        filter_({.mask_token_id = options.mask_token_id,
                 .temperature = options.temperature,
                 .top_p = options.top_p,
                 .top_k = options.top_k,
                 .min_p = options.min_p}) {}

  /// logits: f32 [V]; V >= 2; minus infinity: never proposed. Probabilities are softmaxes over all
  /// logits, mask token included, or over the kept ones where `processed`, in f64.
  [[nodiscard]] Proposal propose(std::span<const float> logits, const NoiseKey& key);

 private:
  [[nodiscard]] std::size_t choose(std::span<const float> logits, const NoiseKey& key) const;

  Options options_;
  TokenFilter filter_;
};

}  // namespace fastdllm
