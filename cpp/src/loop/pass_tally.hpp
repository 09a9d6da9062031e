// Counts the passes of a request.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "cache/model.hpp"
#include "fastdllm/generation.hpp"

namespace fastdllm {

class PassTally {
 public:
  void count(const Feed& feed, std::int64_t batch) {
    const Pass& pass = *feed.pass;
    ++num_passes_;
    ++(pass.fills_cache() ? stats_.refresh_passes : stats_.step_passes);
    stats_.rows_computed += batch * std::ssize(pass.rows);
    stats_.logit_rows_computed += batch * std::ssize(pass.logit_rows);
    stats_.graph_seconds += feed.seconds;
    stats_.cache_bytes = std::max(stats_.cache_bytes, feed.cache->bytes());
  }
  void set_reused_rows(std::int64_t rows) noexcept { stats_.reused_rows = rows; }

  [[nodiscard]] std::int64_t num_passes() const noexcept { return num_passes_; }
  /// With the time since the request was made.
  [[nodiscard]] GenerationStats stats() const {
    GenerationStats stats = stats_;
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start_;
    stats.total_seconds = passed.count();
    return stats;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::int64_t num_passes_ = 0;
  GenerationStats stats_;
};

}  // namespace fastdllm
