#include "rules/sampler.hpp"

#include <algorithm>
#include <limits>

#include "fastdllm/error.hpp"
#include "rules/unmask_policy.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

// A bias or a ban changes every probability of its row, so the graph's candidates say too little.
bool rewrites_logits(const GenerationConfig& config) noexcept {
  return config.cfg_scale > 0.0 || !config.logit_bias.empty() || !config.banned_token_ids.empty();
}

void require_token(std::string_view option, std::int32_t id, const PackageInfo& package) {
  if (id >= 0 && id < package.vocab_size && id != package.mask_token_id) return;
  throw Error(ErrorCode::bad_config, concat(option, " holds ", id, "; expected ids in [0, ",
                                            package.vocab_size, ") other than the mask token"));
}

NeededOutputs needed_by(const GenerationConfig& config, const PackageInfo& package) {
  const bool filtered = package.confidence == ConfidenceKind::processed &&
                        (config.top_p < 1.0 || config.top_k > 0 || config.min_p > 0.0);
  if (config.temperature > 0.0 || rewrites_logits(config) || filtered) return {.logits = true};
  return {.second_confidence = config.remasking == Remasking::margin,
          .entropy = config.remasking == Remasking::entropy || config.entropy_bound.has_value()};
}

}  // namespace

void require_token_options(const PackageInfo& package, const GenerationConfig& config) {
  if (config.stop_token_ids) {
    for (const std::int32_t id : *config.stop_token_ids) {
      require_token("stop_token_ids", id, package);
    }
  }
  for (const auto& [id, bias] : config.logit_bias) require_token("logit_bias", id, package);
  std::vector<std::int32_t> banned = config.banned_token_ids;
  for (const std::int32_t id : banned) require_token("banned_token_ids", id, package);
  std::sort(banned.begin(), banned.end());
  const auto different = std::unique(banned.begin(), banned.end()) - banned.begin();
  if (different >= package.vocab_size - 1) {
    throw Error(ErrorCode::bad_config,
                "banned_token_ids holds every token but the mask token; "
                "expected at least one to remain");
  }
}

Sampler::Sampler(const GenerationConfig& config, const PackageInfo& package, std::int64_t max_rows)
    : config_(config),
      vocab_size_(package.vocab_size),
      mask_token_id_(package.mask_token_id),
      needed_(needed_by(config, package)),
      token_sampler_({.mask_token_id = package.mask_token_id,
                      .temperature = config.temperature,
                      .top_p = config.top_p,
                      .top_k = config.top_k,
                      .min_p = config.min_p,
                      .processed = package.confidence == ConfidenceKind::processed,
                      .statistics = config.remasking == Remasking::margin ||
                                    config.remasking == Remasking::entropy ||
                                    config.entropy_bound.has_value()}),
      token_ids_(static_cast<std::size_t>(max_rows)),
      confidences_(static_cast<std::size_t>(max_rows)),
      scores_(static_cast<std::size_t>(max_rows)),
      entropies_(static_cast<std::size_t>(max_rows)),
      row_(rewrites_logits(config) ? static_cast<std::size_t>(package.vocab_size) : 0) {}

Proposals Sampler::propose(const Predictions& predictions, std::span<const std::int64_t> positions,
                           std::int64_t step) {
  const std::size_t count = positions.size();
  for (std::size_t i = 0; i < count; ++i) {
    const NoiseKey key{config_.seed, positions[i], step};
    const Proposal proposal =
        needed_.logits ? from_logits(predictions, i, key) : from_graph(predictions, i);
    check(positions[i], step, proposal.token_id, proposal.confidence);
    token_ids_[i] = proposal.token_id;
    confidences_[i] = proposal.confidence;
    scores_[i] = score(proposal, key);
    entropies_[i] = proposal.entropy;
  }
  return {std::span(token_ids_).first(count), std::span(confidences_).first(count),
          std::span(scores_).first(count), std::span(entropies_).first(count)};
}

Proposal Sampler::from_logits(const Predictions& predictions, std::size_t row,
                              const NoiseKey& key) {
  const auto vocab_size = static_cast<std::size_t>(vocab_size_);
  const std::span<const float> own = predictions.logits.subspan(row * vocab_size, vocab_size);
  if (row_.empty()) return token_sampler_.propose(own, key);
  if (config_.cfg_scale > 0.0) {
    guide(own, predictions.logits.subspan((predictions.stride + row) * vocab_size, vocab_size));
  } else {
    std::copy(own.begin(), own.end(), row_.begin());
  }
  bias();
  return token_sampler_.propose(row_, key);
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

void Sampler::guide(std::span<const float> conditional, std::span<const float> unconditional) {
  const float weight = static_cast<float>(config_.cfg_scale) + 1.0F;
  for (std::size_t v = 0; v < row_.size(); ++v) {
    row_[v] = unconditional[v] + weight * (conditional[v] - unconditional[v]);
  }
}

void Sampler::bias() {
  for (const auto& [id, bias] : config_.logit_bias) {
    float& logit = row_[static_cast<std::size_t>(id)];
    logit = static_cast<float>(double{logit} + bias);
  }
  for (const std::int32_t id : config_.banned_token_ids) {
    row_[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
  }
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
