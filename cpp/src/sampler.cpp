#include "sampler.hpp"

#include "concat.hpp"
#include "fastdllm/error.hpp"
#include "unmask_policy.hpp"

namespace fastdllm {
namespace {

Wanted wanted_of(const GenerationConfig& config, const PackageInfo& package) {
  const bool filtered =
      package.confidence == ConfidenceKind::processed && (config.top_p < 1.0 || config.top_k > 0);
  if (config.temperature > 0.0 || config.cfg_scale > 0.0 || filtered) return {.logits = true};
  return {.second_confidence = config.remasking == Remasking::margin,
          .entropy = config.remasking == Remasking::entropy || config.entropy_bound.has_value()};
}

}  // namespace

Sampler::Sampler(const GenerationConfig& config, const PackageInfo& package, std::int64_t max_rows)
    : config_(config),
      vocab_size_(package.vocab_size),
      mask_token_id_(package.mask_token_id),
      wanted_(wanted_of(config, package)),
      token_sampler_({.mask_token_id = package.mask_token_id,
                      .temperature = config.temperature,
                      .top_p = config.top_p,
                      .top_k = config.top_k,
                      .processed = package.confidence == ConfidenceKind::processed,
                      .statistics = config.remasking == Remasking::margin ||
                                    config.remasking == Remasking::entropy ||
                                    config.entropy_bound.has_value()}),
      token_ids_(static_cast<std::size_t>(max_rows)),
      confidences_(static_cast<std::size_t>(max_rows)),
      scores_(static_cast<std::size_t>(max_rows)),
      entropies_(static_cast<std::size_t>(max_rows)),
      guided_(config.cfg_scale > 0.0 ? static_cast<std::size_t>(package.vocab_size) : 0) {}

Proposals Sampler::propose(const Predictions& predictions, std::span<const std::int64_t> positions,
                           std::int64_t step) {
  const std::size_t count = positions.size();
  for (std::size_t i = 0; i < count; ++i) {
    const NoiseKey key{config_.seed, positions[i], step};
    const Proposal proposal = wanted_.logits ? from_logits(predictions.logits, i, count, key)
                                             : from_graph(predictions, i);
    check(positions[i], step, proposal.token_id, proposal.confidence);
    token_ids_[i] = proposal.token_id;
    confidences_[i] = proposal.confidence;
    scores_[i] = score(proposal, key);
    entropies_[i] = proposal.entropy;
  }
  return {std::span(token_ids_).first(count), std::span(confidences_).first(count),
          std::span(scores_).first(count), std::span(entropies_).first(count)};
}

Proposal Sampler::from_logits(std::span<const float> logits, std::size_t row, std::size_t rows,
                              const NoiseKey& key) {
  const auto vocab_size = static_cast<std::size_t>(vocab_size_);
  std::span<const float> own = logits.subspan(row * vocab_size, vocab_size);
  if (config_.cfg_scale > 0.0) {
    own = guided(own, logits.subspan((rows + row) * vocab_size, vocab_size));
  }
  return token_sampler_.propose(own, key);
}

Proposal Sampler::from_graph(const Predictions& predictions, std::size_t row) {
  Proposal proposal;
  proposal.token_id = static_cast<std::int32_t>(predictions.token_ids[row]);
  // f32 keeps the complement's precision near certainty, where it would not keep confidence's.
  proposal.confidence = 1.0 - double{predictions.complement[row]};
  if (!predictions.second_confidence.empty()) {
    proposal.margin = proposal.confidence - double{predictions.second_confidence[row]};
  }
  if (!predictions.entropy.empty()) proposal.entropy = double{predictions.entropy[row]};
  return proposal;
}

double Sampler::score(const Proposal& proposal, const NoiseKey& key) const {
  double score = proposal.confidence;
  switch (config_.remasking) {
    case Remasking::low_confidence: break;
    case Remasking::random:
    case Remasking::origin: score = uniform_confidence(key); break;
    case Remasking::margin: score = proposal.margin; break;
    case Remasking::entropy: score = -proposal.entropy; break;
    case Remasking::sequential: score = -static_cast<double>(key.position); break;
  }
  if (config_.alg_temp > 0.0 && goes_by_schedule(config_) &&
      config_.remasking != Remasking::origin) {
    score = score / config_.alg_temp + position_gumbel(key);
  }
  return score;
}

std::span<const float> Sampler::guided(std::span<const float> conditional,
                                       std::span<const float> unconditional) {
  const float weight = static_cast<float>(config_.cfg_scale) + 1.0F;
  for (std::size_t v = 0; v < guided_.size(); ++v) {
    guided_[v] = unconditional[v] + weight * (conditional[v] - unconditional[v]);
  }
  return guided_;
}

void Sampler::check(std::int64_t position, std::int64_t step, std::int64_t token_id,
                    double confidence) const {
  constexpr double slack = 1e-3;  // a softmax in reduced precision may pass 1 by rounding
  if (!(confidence >= 0.0 && confidence <= 1.0 + slack)) {
    throw Error(ErrorCode::numeric,
                concat("pass ", step, ": the confidence at position ", position, " is ", confidence,
                       "; expected a probability (the model's logits hold NaN or infinity)"));
  }
  if (token_id < 0 || token_id >= vocab_size_ || token_id == mask_token_id_) {
    throw Error(ErrorCode::numeric,
                concat("pass ", step, ": the model proposes token ", token_id, " at position ",
                       position, "; expected an id in [0, ", vocab_size_,
                       ") other than the mask token ", mask_token_id_));
  }
}

}  // namespace fastdllm
