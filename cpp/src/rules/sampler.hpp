// From a pass's predictions to one proposal per wanted position.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/model.hpp"
#include "fastdllm/generation.hpp"
#include "rules/sampling.hpp"

namespace fastdllm {

/// Proposals of one pass, by wanted position. Borrowed until the next pass.
struct Proposals {
  std::span<const std::int32_t> token_ids;
  std::span<const double> confidences;  ///< probabilities of the tokens
  std::span<const double> scores;       ///< what ranks the positions, best first
  std::span<const double> entropies;    ///< nats; zeros unless remasking or entropy_bound asks
};

/// Whether the options name tokens that this model has and leave one to propose. Errors:
/// Error{bad_config} naming the option.
void require_token_options(const PackageInfo& package, const GenerationConfig& config);

class Sampler {
 public:
  /// config is borrowed.
  Sampler(const GenerationConfig& config, const PackageInfo& package, std::int64_t max_rows);
  Sampler(GenerationConfig&&, const PackageInfo&, std::int64_t) = delete;

  /// What the graph must hand back: its own arg-max where that does, else the logits.
  [[nodiscard]] NeededOutputs needed() const noexcept { return needed_; }

  /// positions: absolute, of the predictions' rows. step: keys the noise. Errors: Error{numeric}
  /// when a confidence is no probability or an id is no token.
  [[nodiscard]] Proposals propose(const Predictions& predictions,
                                  std::span<const std::int64_t> positions, std::int64_t step);

 private:
  /// A row of logits [V], written to row_. Classifier-free guidance (arXiv 2502.09992):
  /// u + (cfg_scale + 1) (c - u), in f32.
  void guide(std::span<const float> conditional, std::span<const float> unconditional);
  /// logit_bias, rounded once, and banned_token_ids.
  void bias();
  [[nodiscard]] Proposal from_logits(const Predictions& predictions, std::size_t row,
                                     const NoiseKey& key);
  [[nodiscard]] static Proposal from_graph(const Predictions& predictions, std::size_t row);
  [[nodiscard]] double score(const Proposal& proposal, const NoiseKey& key) const;
  void check(std::int64_t position, std::int64_t step, std::int64_t token_id,
             double confidence) const;

  const GenerationConfig& config_;
  std::int64_t vocab_size_;
  std::int32_t mask_token_id_;
  NeededOutputs needed_;
  TokenSampler token_sampler_;
  std::vector<std::int32_t> token_ids_;
  std::vector<double> confidences_, scores_, entropies_;
  std::vector<float> row_;  // empty where logits are taken as they are
};

}  // namespace fastdllm
