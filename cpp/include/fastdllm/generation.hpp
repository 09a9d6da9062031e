// Options, events and results of one generation. The same names in C++, Python, JSON and CLI.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace fastdllm {

/// Which K/V rows a step reuses from its block's refresh pass (Fast-dLLM, arXiv 2505.22618).
enum class CacheMode {
  none,    ///< every pass recomputes the whole canvas
  prefix,  ///< rows before the block are cached; a step recomputes the block and what follows it
  dual,    ///< rows before and after the block are cached; a step recomputes the block only
};

/// What ranks the masked positions of a block.
enum class Remasking {
  low_confidence,  ///< the softmax probability of the proposed token (arXiv 2502.09992)
  random,          ///< uniform numbers
};

enum class FinishReason {
  stop,    ///< an end-of-text token, with every position before it filled
  length,  ///< max_new_tokens
  abort,   ///< the commit callback asked for it
};

[[nodiscard]] std::string_view name_of(CacheMode mode) noexcept;
[[nodiscard]] std::string_view name_of(Remasking remasking) noexcept;
[[nodiscard]] std::string_view name_of(FinishReason reason) noexcept;
/// Errors: Error{bad_config} naming the known values.
[[nodiscard]] CacheMode parse_cache_mode(std::string_view name);
[[nodiscard]] Remasking parse_remasking(std::string_view name);

struct GenerationConfig {
  std::int64_t max_new_tokens = 128;  ///< >= 1
  std::int64_t block_length = 32;     ///< >= 1; the last block is shorter where it does not divide
  std::optional<std::int64_t>
      steps{};  ///< >= 1, over the whole generation; none = one token per pass
  std::optional<double> threshold{};  ///< in (0, 1]: commit every position at least this confident
  std::optional<double> factor{};  ///< > 0: Fast-dLLM's factor rule; wins over threshold and steps
  CacheMode cache = CacheMode::dual;
  Remasking remasking = Remasking::low_confidence;
  double temperature = 0.0;  ///< >= 0; 0 = arg-max, else Gumbel-max sampling
  double cfg_scale = 0.0;    ///< >= 0; classifier-free guidance, 0 = off
  std::uint64_t seed = 0;
  bool ignore_eos = false;  ///< run every block instead of stopping at end-of-text

  friend bool operator==(const GenerationConfig&, const GenerationConfig&) noexcept = default;
};

/// Errors: Error{bad_config} naming the option, what is allowed and what was found.
void validate(const GenerationConfig& config);

/// One pass's commits. The spans are borrowed and valid during the callback only.
struct CommitEvent {
  std::int64_t step = 0;         ///< pass within the request, from 0
  std::int64_t block = 0;        ///< from 0
  std::int64_t block_start = 0;  ///< the block is [block_start, block_end) of the new tokens
  std::int64_t block_end = 0;
  bool block_finished = false;              ///< no masked position is left in the block
  std::span<const std::int32_t> positions;  ///< ascending indices into the new tokens
  std::span<const std::int32_t> token_ids;  ///< one per position
  std::span<const double> confidences;      ///< one per position
};

/// Called after every pass on the generating thread; false ends the generation with `abort`.
using CommitCallback = std::function<bool(const CommitEvent&)>;

struct GenerationStats {
  std::int64_t refresh_passes = 0;       ///< passes over the whole canvas
  std::int64_t step_passes = 0;          ///< passes that reused a cache
  std::int64_t rows_computed = 0;        ///< rows fed to the graph, guidance rows included
  std::int64_t logit_rows_computed = 0;  ///< rows whose logits were computed, likewise
  double graph_seconds = 0.0;            ///< inside the backend's runs
  double total_seconds = 0.0;            ///< the whole call
  std::int64_t cache_bytes = 0;          ///< K/V held by this request's block cache
};

struct GenerationResult {
  /// New tokens. Cut after the first end-of-text token unless ignore_eos; on abort, cut before the
  /// first position that is still masked. Never a mask token.
  std::vector<std::int32_t> token_ids;
  std::int64_t num_passes = 0;  ///< graph runs (the papers' NFE)
  FinishReason finish_reason = FinishReason::length;
  GenerationStats stats;
};

}  // namespace fastdllm
