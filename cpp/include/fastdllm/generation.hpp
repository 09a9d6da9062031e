// Options, events and results of one generation. The same names in C++, Python, JSON and CLI.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fastdllm/export.h"

namespace fastdllm {

/// Which K/V rows a pass reuses (Fast-dLLM, arXiv 2505.22618; v2: arXiv 2509.26328).
enum class CacheMode {
  none,    ///< every pass recomputes everything that may be attended to
  prefix,  ///< rows before the block are cached. Bidirectional: as of the block's refresh pass, a
           ///< step recomputes the block and what follows it. Block-causal: exact
  dual,    ///< a step recomputes the block (block-causal: the sub-block) only; the rows around it
           ///< are those of its refresh pass
  automatic,  ///< "auto": the engine chooses
};

/// What ranks the masked positions of a block.
enum class Remasking {
  low_confidence,  ///< the probability of the proposed token (arXiv 2502.09992)
  random,          ///< uniform numbers
  margin,          ///< the best token's probability minus the next best one's
  entropy,         ///< the smallest entropy first
  sequential,      ///< the left-most first
  origin,          ///< no rank: each position is revealed independently, at the schedule's rate
};

/// Where an answer that holds a stop token ends.
enum class StopAt {
  token,  ///< with the first stop token
  block,  ///< with the block that holds it
};

enum class FinishReason {
  stop,    ///< a stop token, with every position before it filled
  length,  ///< max_new_tokens
  abort,   ///< the commit callback asked for it, or it was cancelled, or its engine destroyed
};

[[nodiscard]] FASTDLLM_API std::string_view name_of(CacheMode mode) noexcept;
[[nodiscard]] FASTDLLM_API std::string_view name_of(Remasking remasking) noexcept;
[[nodiscard]] FASTDLLM_API std::string_view name_of(StopAt stop_at) noexcept;
[[nodiscard]] FASTDLLM_API std::string_view name_of(FinishReason reason) noexcept;
/// Errors: Error{bad_config} naming the known values.
[[nodiscard]] FASTDLLM_API CacheMode parse_cache_mode(std::string_view name);
[[nodiscard]] FASTDLLM_API Remasking parse_remasking(std::string_view name);
[[nodiscard]] FASTDLLM_API StopAt parse_stop_at(std::string_view name);

struct GenerationConfig {
  std::int64_t max_new_tokens = 128;  ///< >= 1
  /// >= 1; none = the package's, or 32. Bidirectional: blocks count from the end of the prompt, the
  /// last may be shorter. Block-causal: blocks lie at absolute multiples.
  std::optional<std::int64_t> block_length{};
  /// >= 1, block-causal only: positions of a block that are decoded together, from left to right;
  /// none = the package's, or the whole block.
  std::optional<std::int64_t> sub_block_length{};
  std::optional<std::int64_t>
      steps{};  ///< in [1, 2^20], over the whole generation; none = one token per pass
  std::optional<std::int64_t>
      steps_per_block{};        ///< in [1, 2^20], instead of steps; with threshold: the
                                ///< pass commits at least the schedule's share
  std::optional<double> eps{};  ///< in (0, 1): the schedule follows time steps from 1 down to eps
  std::optional<double> threshold{};  ///< in (0, 1]: commit every position at least this confident
  /// In [0, 1], needs threshold: it is times 1 - threshold_decay * (share of the block that is
  /// filled), so that it sinks while a block fills (arXiv 2601.17917).
  double threshold_decay = 0.0;
  std::optional<double> factor{};  ///< > 0: Fast-dLLM's factor rule; wins over threshold and steps
  /// In [0, 1), alone: commit while the lower bound on all being right exceeds the upper bound on a
  /// rival of the least sure one by more than this (the Frechet profile, arXiv 2606.02955).
  std::optional<double> frechet{};
  /// >= 0, in nats, alone: commit while the entropies but the largest sum up to this at most
  /// (arXiv 2505.24857).
  std::optional<double> entropy_bound{};
  CacheMode cache = CacheMode::automatic;
  std::optional<std::int64_t>
      suffix_window{};  ///< >= 0: mask tokens behind the block that a step attends to, and the last
  std::optional<std::int64_t> refresh_interval{};  ///< >= 1: passes from refresh to refresh
  /// >= 1: no fixed blocks; a window of at most so many positions follows the left-most mask, its
  /// masks block_length at most (arXiv 2601.02076).
  std::optional<std::int64_t> deferred_window{};
  std::optional<std::int64_t> refresh_tokens{};  ///< >= 1: committed tokens from refresh to refresh
  Remasking remasking = Remasking::low_confidence;
  double temperature = 0.0;  ///< >= 0; 0 = arg-max, else Gumbel-max sampling
  double top_p = 1.0;        ///< in (0, 1]: sample from the smallest set of this probability
  std::int64_t top_k = 0;    ///< >= 0: sample from the k best tokens; 0 = all
  double min_p =
      0.0;  ///< in [0, 1): of those, the ones at least this times as probable as the best
  /// (token id, bias in [-1e6, 1e6]), each id once: added to the logits before anything else.
  std::vector<std::pair<std::int32_t, double>> logit_bias{};
  std::vector<std::int32_t> banned_token_ids{};  ///< never proposed: a bias of minus infinity
  double alg_temp = 0.0;   ///< >= 0: temperature of the choice among positions; 0 = the best
  double cfg_scale = 0.0;  ///< >= 0; classifier-free guidance, 0 = off
  std::uint64_t seed = 0;
  /// In [0, 1]: overwrite a committed token of the block when another is more confident than this.
  std::optional<double> editing_threshold{};
  /// In [0, 2^20]: passes that edit a block without masks, at most.
  std::int64_t max_post_steps = 16;
  std::optional<std::vector<std::int32_t>> stop_token_ids{};  ///< none = the package's eos ids
  StopAt stop_at = StopAt::token;
  bool ignore_eos = false;  ///< run every block instead of stopping

  friend bool operator==(const GenerationConfig&, const GenerationConfig&) noexcept = default;
};

/// Errors: Error{bad_config} naming the option, what is allowed and what was found.
FASTDLLM_API void validate(const GenerationConfig& config);

/// The config as programs offer it that let a user name options: with threshold 0.9, the paper's,
/// unless it names a rule or a schedule, which is then what it says.
[[nodiscard]] FASTDLLM_API GenerationConfig with_default_rule(GenerationConfig config);

/// The names of the fields, in their order.
[[nodiscard]] FASTDLLM_API std::span<const std::string_view> option_names() noexcept;
/// Sets a field from text: a number, a name, "true" or "false", ids "1,2,3", biases "12=-1.5,7=2",
/// "none" for a field without a value. Errors: Error{bad_config} naming the option, what is
/// expected and what was found; whether numbers are in range is for validate() to say.
FASTDLLM_API void set_option(GenerationConfig& config, std::string_view name,
                             std::string_view value);
/// The text of a field, of which set_option() makes the same value. Errors: Error{bad_config}.
[[nodiscard]] FASTDLLM_API std::string get_option(const GenerationConfig& config,
                                                  std::string_view name);

/// One pass's commits; none after a pass that only filled the cache, which has the step of the
/// next. With an editing_threshold a position may come again until its block is finished. The spans
/// are borrowed and valid during the callback only.
struct CommitEvent {
  std::int64_t step = 0;         ///< pass within the request, from 0
  std::int64_t block = 0;        ///< from 0
  std::int64_t block_start = 0;  ///< the block is [block_start, block_end) of the new tokens
  std::int64_t block_end = 0;
  bool block_finished = false;              ///< its tokens, as far as they are asked for, are final
  bool refreshed = false;                   ///< a refresh pass, see GenerationStats; else a step
  std::int64_t rows = 0;                    ///< fed to the graph by the pass, guidance included
  std::span<const std::int32_t> positions;  ///< ascending indices into the new tokens
  std::span<const std::int32_t> token_ids;  ///< one per position
  std::span<const double> confidences;      ///< probabilities of the tokens, one per position
};

/// Called after every pass over a block, on the engine's thread; false ends the generation with
/// `abort`, unless this pass has ended it. A process that a callback forks ends when the callback
/// returns there: it has nothing but the engine's thread. Let it exec or _exit.
using CommitCallback = std::function<bool(const CommitEvent&)>;

struct GenerationStats {
  std::int64_t refresh_passes = 0;       ///< passes that started from nothing or filled the cache
  std::int64_t step_passes = 0;          ///< passes that only read a cache
  std::int64_t reused_rows = 0;          ///< prompt rows whose K/V an earlier request had left
  std::int64_t rows_computed = 0;        ///< rows fed to the graph, guidance rows included
  std::int64_t logit_rows_computed = 0;  ///< rows whose logits were computed, likewise
  double graph_seconds = 0.0;            ///< inside the backend's runs, shared ones in full
  double total_seconds = 0.0;            ///< from the call on, with what others took
  std::int64_t cache_bytes = 0;          ///< K/V held by this request's block cache
};

struct GenerationResult {
  /// New tokens. Cut after the first stop token, or its block, unless ignore_eos; on abort, cut
  /// before the first position that is still masked. Never a mask token.
  std::vector<std::int32_t> token_ids;
  /// One per token: natural logarithm of its confidence at the pass that committed it.
  std::vector<double> logprobs;
  std::int64_t num_passes = 0;  ///< graph runs (the papers' NFE)
  FinishReason finish_reason = FinishReason::length;
  GenerationStats stats;
};

}  // namespace fastdllm
