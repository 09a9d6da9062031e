// Options, events and results of one request. Their names are the same in C, Python, JSON and on
// the command line. docs/unmasking.md explains the unmasking rules, docs/caches.md the caches.
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

/// Which K/V rows a pass reuses from earlier passes (Fast-dLLM, arXiv 2505.22618; v2: arXiv
/// 2509.26328).
enum class CacheMode {
  none,  ///< every pass recomputes all rows
  /// Reuses the rows before the block. Bidirectional models: these rows date from the block's
  /// refresh pass; a step recomputes the block and all rows behind it. Block-causal models: the
  /// cached rows are exact.
  prefix,
  /// A step recomputes only the block (block-causal models: the sub-block). All other rows date
  /// from the block's refresh pass.
  dual,
  automatic,  ///< "auto": the engine chooses
};

/// How the masked positions of a block are ranked. A pass commits the best-ranked ones.
enum class Remasking {
  low_confidence,  ///< by the probability of the proposed token (arXiv 2502.09992)
  random,          ///< by uniform random numbers
  margin,          ///< by the best token's probability minus that of the second best
  entropy,         ///< the smallest entropy first
  sequential,      ///< from left to right
  /// Not ranked: each position is committed by chance, at the schedule's rate.
  origin,
};

/// Where an answer with a stop token ends.
enum class StopAt {
  token,  ///< after the first stop token
  block,  ///< after the block with the first stop token
};

/// Why a request ended.
enum class FinishReason {
  stop,    ///< there is a stop token, and no mask is left before it
  length,  ///< max_new_tokens are decoded
  abort,   ///< a callback returned false, the request was cancelled, or its engine was destroyed
};

[[nodiscard]] FASTDLLM_API std::string_view name_of(CacheMode mode) noexcept;
[[nodiscard]] FASTDLLM_API std::string_view name_of(Remasking remasking) noexcept;
[[nodiscard]] FASTDLLM_API std::string_view name_of(StopAt stop_at) noexcept;
[[nodiscard]] FASTDLLM_API std::string_view name_of(FinishReason reason) noexcept;
/// Errors: Error{bad_config} with the known names.
[[nodiscard]] FASTDLLM_API CacheMode parse_cache_mode(std::string_view name);
[[nodiscard]] FASTDLLM_API Remasking parse_remasking(std::string_view name);
[[nodiscard]] FASTDLLM_API StopAt parse_stop_at(std::string_view name);

/// The options of one request. docs/options.md has a table of them.
struct GenerationConfig {
  std::int64_t max_new_tokens = 128;  ///< >= 1: positions to decode
  /// >= 1: positions of a block; none = the package's, or 32. Bidirectional models: blocks are
  /// counted from the end of the prompt, and the last may be shorter. Block-causal models: blocks
  /// begin at multiples of block_length, counted from the beginning of the prompt.
  std::optional<std::int64_t> block_length{};
  /// >= 1, block-causal models only: positions of a sub-block. Sub-blocks of a block are decoded
  /// from left to right. None = the package's, or the whole block.
  std::optional<std::int64_t> sub_block_length{};
  /// In [1, 2^20]: denoising steps of the whole answer, divided among its blocks. None = one token
  /// per pass.
  std::optional<std::int64_t> steps{};
  /// In [1, 2^20]: denoising steps per block, instead of `steps`. With threshold: a pass commits at
  /// least as many positions as this schedule gives it.
  std::optional<std::int64_t> steps_per_block{};
  std::optional<double> eps{};        ///< in (0, 1): the schedule follows times from 1 to eps
  std::optional<double> threshold{};  ///< in (0, 1]: commit every position at least this confident
  /// In [0, 1], needs threshold. The threshold is multiplied by 1 - threshold_decay * (committed
  /// share of the block), so it falls while the block fills (arXiv 2601.17917).
  double threshold_decay = 0.0;
  /// > 0: Fast-dLLM's factor rule (arXiv 2505.22618). Takes precedence over threshold and steps.
  std::optional<double> factor{};
  /// In [0, 1), without another rule. Commits the n best positions as long as the lower bound of
  /// the probability that all n tokens are right is larger, by more than this, than the upper bound
  /// of the probability of another token at the least confident one (Frechet profile, arXiv
  /// 2606.02955).
  std::optional<double> frechet{};
  /// >= 0, in nats, without another rule. Commits positions as long as the sum of their entropies,
  /// without the largest one, is at most this (arXiv 2505.24857).
  std::optional<double> entropy_bound{};
  CacheMode cache = CacheMode::automatic;
  /// >= 0: a step attends to this many mask tokens behind the block, and to the last position.
  /// None = to all.
  std::optional<std::int64_t> suffix_window{};
  std::optional<std::int64_t> refresh_interval{};  ///< >= 1: passes from one refresh to the next
  /// >= 1: replaces fixed blocks by a window that starts at the left-most mask. It has at most this
  /// many positions and at most block_length masks (arXiv 2601.02076).
  std::optional<std::int64_t> deferred_window{};
  /// >= 1: committed tokens from one refresh to the next.
  std::optional<std::int64_t> refresh_tokens{};
  Remasking remasking = Remasking::low_confidence;
  double temperature = 0.0;  ///< >= 0: 0 = the most probable token, else Gumbel-max sampling
  double top_p = 1.0;  ///< in (0, 1]: sample from the smallest set of tokens with this probability
  std::int64_t top_k = 0;  ///< >= 0: sample from the k most probable tokens; 0 = from all
  /// In [0, 1): sample only from tokens whose probability is at least min_p times the largest one.
  double min_p = 0.0;
  /// Pairs (token id, bias in [-1e6, 1e6]), each id once: added to the logits before anything else.
  std::vector<std::pair<std::int32_t, double>> logit_bias{};
  std::vector<std::int32_t> banned_token_ids{};  ///< tokens that are never proposed
  double alg_temp = 0.0;   ///< >= 0: randomness of the choice among positions; 0 = the best-ranked
  double cfg_scale = 0.0;  ///< >= 0: scale of classifier-free guidance; 0 = off
  std::uint64_t seed = 0;  ///< of all random numbers of the request
  /// In [0, 1]: overwrite a committed token of the block when the model is more confident than this
  /// of another token.
  std::optional<double> editing_threshold{};
  /// In [0, 2^20]: maximum number of passes that only edit, after a block's last mask is committed.
  std::int64_t max_post_steps = 16;
  /// Tokens that end an answer. None = the package's eos ids; empty = no token does.
  std::optional<std::vector<std::int32_t>> stop_token_ids{};
  StopAt stop_at = StopAt::token;
  bool ignore_eos = false;  ///< decode all max_new_tokens, also after a stop token

  friend bool operator==(const GenerationConfig&, const GenerationConfig&) noexcept = default;
};

/// Checks the range of every option and which options may be combined. Errors: Error{bad_config}
/// with the option's name, what is allowed and what was found.
FASTDLLM_API void validate(const GenerationConfig& config);

/// Adds threshold 0.9, Fast-dLLM's default, to a config that sets no unmasking rule and no
/// schedule. For programs whose users may set options but need not.
[[nodiscard]] FASTDLLM_API GenerationConfig with_default_rule(GenerationConfig config);

/// The names of GenerationConfig's fields, in their order.
[[nodiscard]] FASTDLLM_API std::span<const std::string_view> option_names() noexcept;
/// Sets a field from text: a number, a name, "true" or "false", ids "1,2,3", biases "12=-1.5,7=2",
/// or "none" for an optional field without a value. Errors: Error{bad_config} with the option's
/// name, what is expected and what was found. Does not check ranges: validate() does.
FASTDLLM_API void set_option(GenerationConfig& config, std::string_view name,
                             std::string_view value);
/// A field as text that set_option() takes. Errors: Error{bad_config} for an unknown name.
[[nodiscard]] FASTDLLM_API std::string get_option(const GenerationConfig& config,
                                                  std::string_view name);

/// What one pass committed. A pass that only fills the cache commits nothing and has the same step
/// number as the next pass. With editing_threshold, a position may be committed again until its
/// block is finished. The spans are borrowed and valid only during the callback.
struct CommitEvent {
  std::int64_t step = 0;         ///< number of the pass within the request, from 0
  std::int64_t block = 0;        ///< number of the block, from 0
  std::int64_t block_start = 0;  ///< the block is [block_start, block_end) of the new tokens
  std::int64_t block_end = 0;
  bool block_finished = false;  ///< the block's tokens (within max_new_tokens) are final
  bool refreshed = false;       ///< true: a refresh pass; false: a step (see GenerationStats)
  std::int64_t rows = 0;        ///< rows fed to the graph by the pass, guidance rows included
  std::span<const std::int32_t> positions;  ///< ascending indices into the new tokens
  std::span<const std::int32_t> token_ids;  ///< one per position
  std::span<const double> confidences;      ///< probabilities of the tokens, one per position
};

/// Called after every pass over a block, on the engine's thread. Returning false ends the request
/// with FinishReason::abort, unless this pass has already ended it. In a process that a callback
/// forks, only the engine's thread exists: the process must exec or _exit. It ends when the
/// callback returns.
using CommitCallback = std::function<bool(const CommitEvent&)>;

/// What a request cost.
struct GenerationStats {
  std::int64_t refresh_passes = 0;       ///< passes without a cache, or that filled it
  std::int64_t step_passes = 0;          ///< passes that only read the cache
  std::int64_t reused_rows = 0;          ///< prompt rows whose K/V came from an earlier request
  std::int64_t rows_computed = 0;        ///< rows fed to the graph, guidance rows included
  std::int64_t logit_rows_computed = 0;  ///< rows whose logits were computed, guidance included
  double graph_seconds = 0.0;    ///< seconds in graph runs; a shared run counts in full for each
  double total_seconds = 0.0;    ///< seconds from submission to end, waiting included
  std::int64_t cache_bytes = 0;  ///< bytes of this request's K/V cache
};

/// How a request ended and what it decoded.
struct GenerationResult {
  /// The new tokens, never a mask token. They end after the first stop token (or its block, see
  /// StopAt) unless ignore_eos is set. After FinishReason::abort, they end before the first
  /// position that is still masked.
  std::vector<std::int32_t> token_ids;
  /// One per token: the natural logarithm of its confidence in the pass that committed it.
  std::vector<double> logprobs;
  std::int64_t num_passes = 0;  ///< passes of the request (NFE in the papers)
  FinishReason finish_reason = FinishReason::length;
  GenerationStats stats;
};

}  // namespace fastdllm
