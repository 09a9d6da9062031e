#include "sampler.hpp"

#include "concat.hpp"
#include "fastdllm/error.hpp"
#include "sampling.hpp"

namespace fastdllm {

Sampler::Sampler(const GenerationConfig& config, const PackageInfo& package, std::int64_t max_rows)
    : config_(config),
      vocab_size_(package.vocab_size),
      mask_token_id_(package.mask_token_id),
      token_ids_(static_cast<std::size_t>(max_rows)),
      confidences_(static_cast<std::size_t>(max_rows)),
      guided_(config.cfg_scale > 0.0 ? static_cast<std::size_t>(package.vocab_size) : 0) {}

bool Sampler::needs_logits() const noexcept {
  return config_.temperature > 0.0 || config_.cfg_scale > 0.0;
}

Proposals Sampler::propose(const Predictions& predictions, std::span<const std::int64_t> masked,
                           std::int64_t pass) {
  const std::size_t count = masked.size();
  const auto vocab_size = static_cast<std::size_t>(vocab_size_);
  for (std::size_t i = 0; i < count; ++i) {
    const NoiseKey key{config_.seed, masked[i], pass};
    std::int64_t token_id = 0;
    double confidence = 0.0;
    if (needs_logits()) {
      std::span<const float> row = predictions.logits.subspan(i * vocab_size, vocab_size);
      if (config_.cfg_scale > 0.0) {
        row = guided(row, predictions.logits.subspan((count + i) * vocab_size, vocab_size));
      }
      const Proposal proposal = fastdllm::propose(row, mask_token_id_, config_.temperature, key);
      token_id = proposal.token_id;
      confidence = proposal.confidence;
    } else {
      token_id = predictions.token_ids[i];
      // f32 keeps the complement's precision near certainty, where it would not keep confidence's.
      confidence = 1.0 - double{predictions.complement[i]};
    }
    check(masked[i], pass, token_id, confidence);
    token_ids_[i] = static_cast<std::int32_t>(token_id);
    confidences_[i] = config_.remasking == Remasking::random ? uniform_confidence(key) : confidence;
  }
  return {std::span(token_ids_).first(count), std::span(confidences_).first(count)};
}

std::span<const float> Sampler::guided(std::span<const float> conditional,
                                       std::span<const float> unconditional) {
  const float weight = static_cast<float>(config_.cfg_scale) + 1.0F;
  for (std::size_t v = 0; v < guided_.size(); ++v) {
    guided_[v] = unconditional[v] + weight * (conditional[v] - unconditional[v]);
  }
  return guided_;
}

void Sampler::check(std::int64_t position, std::int64_t pass, std::int64_t token_id,
                    double confidence) const {
  constexpr double slack = 1e-3;  // a softmax in reduced precision may pass 1 by rounding
  if (!(confidence >= 0.0 && confidence <= 1.0 + slack)) {
    throw Error(ErrorCode::numeric,
                concat("pass ", pass, ": the confidence at position ", position, " is ", confidence,
                       "; expected a probability (the model's logits hold NaN or infinity)"));
  }
  if (token_id < 0 || token_id >= vocab_size_ || token_id == mask_token_id_) {
    throw Error(ErrorCode::numeric,
                concat("pass ", pass, ": the model proposes token ", token_id, " at position ",
                       position, "; expected an id in [0, ", vocab_size_,
                       ") other than the mask token ", mask_token_id_));
  }
}

}  // namespace fastdllm
