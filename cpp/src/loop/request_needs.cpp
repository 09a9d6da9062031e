#include "loop/request_needs.hpp"

#include <algorithm>

namespace fastdllm {
namespace {

// Reusing fewer rows than this would save less than the pass costs that drops the rows behind them.
constexpr std::int64_t min_rows_worth_a_cut = 128;
// A deferred window is moved after this many committed tokens (arXiv 2601.02076).
constexpr std::int64_t default_refresh_tokens = 16;

bool is_block_causal(const PackageInfo& package) noexcept {
  return package.attention == AttentionKind::block_causal;
}

std::int64_t batch_of(const GenerationConfig& config) noexcept {
  return config.cfg_scale > 0.0 ? 2 : 1;
}

// A cache saves nothing where a refresh leaves hardly more than the block's own rows to compute.
CacheMode best_cache(const PackageInfo& package, const Canvas& canvas) noexcept {
  if (is_block_causal(package)) return CacheMode::dual;
  const std::int64_t block_length = canvas.block(0).length();
  return (canvas.length() - block_length) * 8 <= block_length ? CacheMode::none : CacheMode::dual;
}

}  // namespace

GenerationConfig resolved(GenerationConfig config, const PackageInfo& package,
                          const Canvas& canvas) {
  if (config.cache == CacheMode::automatic) config.cache = best_cache(package, canvas);
  if (config.deferred_window && !config.refresh_tokens) {
    config.refresh_tokens = default_refresh_tokens;
  }
  return config;
}

std::vector<std::int32_t> stop_ids_of(const PackageInfo& package, const GenerationConfig& config,
                                      bool infills) {
  if (infills || config.ignore_eos) return {};
  return config.stop_token_ids ? *config.stop_token_ids : package.eos_token_ids;
}

RequestNeeds needs_of(const PackageInfo& package, const GenerationConfig& config,
                      const Canvas& canvas, const PassPlanner& planner) {
  const bool cached = config.cache != CacheMode::none;
  const bool block_causal = is_block_causal(package);
  const std::int64_t block_length = canvas.block(0).length();
  const auto length = static_cast<double>(canvas.length());
  const auto passes = static_cast<double>(
      std::count(canvas.given().begin(), canvas.given().end(), std::uint8_t{0}));
  const bool by_block = cached && (block_causal || config.cache == CacheMode::dual);
  const double refreshes = block_causal ? 1.0 : static_cast<double>(canvas.num_blocks());
  const double rows_per_pass = by_block ? static_cast<double>(block_length) : length;
  RequestNeeds needs;
  needs.rows = (cached ? refreshes * length : 0.0) + passes * rows_per_pass;
  needs.largest_run = {
      .batch = batch_of(config),
      .rows = planner.max_fed_rows(),
      .cached = config.deferred_window && cached ? canvas.length() : planner.max_cached_rows(),
      .wanted = std::max<std::int64_t>(block_length, 2)};
  return needs;
}

std::int64_t rows_to_reuse(const PackageInfo& package, const GenerationConfig& config,
                           const Canvas& canvas, const BlockCache& cache) {
  if (!is_block_causal(package) || config.cache == CacheMode::none || batch_of(config) > 1) {
    return 0;
  }
  const std::int64_t block_length = canvas.block(0).length();
  std::int64_t most = canvas.block(0).start;
  // The last committed row's output gives the first new token: it has to be computed again.
  if (package.seed_token && most == canvas.prompt_length()) most -= block_length;
  const auto ids = canvas.ids().first(static_cast<std::size_t>(std::max<std::int64_t>(most, 0)));
  const std::int64_t rows = cache.reusable_rows(ids, block_length);
  return rows < cache.committed_length() && rows < min_rows_worth_a_cut ? 0 : rows;
}

}  // namespace fastdllm
