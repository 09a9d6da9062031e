// From a pass's predictions to one proposal per masked position.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fastdllm/generation.hpp"
#include "model.hpp"

namespace fastdllm {

/// Proposals of one pass, by masked position. Borrowed until the next pass.
struct Proposals {
  std::span<const std::int32_t> token_ids;
  std::span<const double> confidences;
};

class Sampler {
 public:
  Sampler(const GenerationConfig& config, const PackageInfo& package, std::int64_t max_rows);

  /// True where the graph's arg-max does not do: sampling and guidance work on the logits.
  [[nodiscard]] bool needs_logits() const noexcept;

  /// masked: the absolute positions behind the predictions' rows. pass: within the request, from 0.
  /// Errors: Error{numeric} when a confidence is no probability or an id is no token.
  [[nodiscard]] Proposals propose(const Predictions& predictions,
                                  std::span<const std::int64_t> masked, std::int64_t pass);

 private:
  /// Classifier-free guidance (arXiv 2502.09992): u + (cfg_scale + 1) (c - u), in f32.
  [[nodiscard]] std::span<const float> guided(std::span<const float> conditional,
                                              std::span<const float> unconditional);
  void check(std::int64_t position, std::int64_t pass, std::int64_t token_id,
             double confidence) const;

  GenerationConfig config_;
  std::int64_t vocab_size_;
  std::int32_t mask_token_id_;
  std::vector<std::int32_t> token_ids_;
  std::vector<double> confidences_;
  std::vector<float> guided_;
};

}  // namespace fastdllm
