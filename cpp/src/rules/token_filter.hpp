// top_k, top_p and min_p: which tokens of a row of logits may be proposed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fastdllm {

/// Drops tokens from rows of logits; scratch memory is kept between rows. What is kept is selected,
/// not sorted: a sort of the whole vocabulary would cost more than the rest of a sampled pass.
class TokenFilter {
 public:
  struct Options {
    std::int32_t mask_token_id = 0;  ///< counts in the probabilities, is never kept
    double temperature = 0.0;        ///< of the probabilities; 0 = 1
    double top_p = 1.0;              ///< keep the best tokens until their probability passes this
    std::int64_t top_k = 0;          ///< of these, keep the k best; 0 = all
    double min_p = 0.0;              ///< of these, keep what is at least so many times as probable
                                     ///< as the best one
  };
  explicit TokenFilter(const Options& options) : options_(options) {}

  /// Whether it drops anything at all but the mask token.
  [[nodiscard]] bool drops(std::size_t vocab_size) const noexcept;
  /// logits: f32 [V] without NaN. The same, minus infinity where a token is dropped. Of equal
  /// logits the lower id is better. Borrowed until the next call.
  [[nodiscard]] std::span<const float> keep(std::span<const float> logits);

 private:
  void select_best(std::span<const float> logits);
  void keep_first(std::span<const float> logits, std::size_t count);
  void keep_probable(std::span<const float> logits, std::size_t most);
  void drop_below_min_p();

  Options options_;
  double scale_ = options_.temperature > 0.0 ? options_.temperature : 1.0;
  std::vector<float> kept_;
  std::vector<std::uint64_t> ranked_;  // a key per token, see rank_key()
};

}  // namespace fastdllm
