// The resolved options of a request before it runs, and the most that it may need.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/block_cache.hpp"
#include "cache/canvas.hpp"
#include "cache/pass.hpp"
#include "fastdllm/backend.hpp"
#include "fastdllm/generation.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm {

/// The config with every choice made that is left to the engine.
[[nodiscard]] GenerationConfig resolved(GenerationConfig config, const PackageInfo& package,
                                        const Canvas& canvas);

/// Tokens that end the answer. infills: the canvas is full of given tokens, none ends it.
[[nodiscard]] std::vector<std::int32_t> stop_ids_of(const PackageInfo& package,
                                                    const GenerationConfig& config, bool infills);

struct RequestNeeds {
  RunSizes largest_run;  ///< of its passes; `cached`: the most K/V rows that it holds at a time
  double rows = 0.0;     ///< to compute if every pass commits one token
};

[[nodiscard]] RequestNeeds needs_of(const PackageInfo& package, const GenerationConfig& config,
                                    const Canvas& canvas, const PassPlanner& planner);

/// Committed rows in `cache` that the request would go on from; 0 but for block-causal models.
[[nodiscard]] std::int64_t rows_to_reuse(const PackageInfo& package, const GenerationConfig& config,
                                         const Canvas& canvas, const BlockCache& cache);

}  // namespace fastdllm
