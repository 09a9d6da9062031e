// Seeded noise and the proposal of a token from a row of logits. The noise depends on (seed,
// position, pass, token) only and is the same on every platform: integer arithmetic plus a
// logarithm made of IEEE additions, multiplications and divisions.
#pragma once

#include <array>
#include <cstdint>
#include <span>

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

struct Proposal {
  std::int32_t token_id = 0;
  double confidence = 0.0;  ///< softmax probability of token_id; NaN when a logit is NaN
};

/// The arg-max (temperature 0) or a Gumbel-max sample of softmax(logits / temperature), never
/// `mask_token_id`; its confidence is that of the plain softmax over all logits, in f64.
/// logits: f32 [V]; V >= 2.
[[nodiscard]] Proposal propose(std::span<const float> logits, std::int32_t mask_token_id,
                               double temperature, const NoiseKey& key) noexcept;

}  // namespace fastdllm
