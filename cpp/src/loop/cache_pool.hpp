// The memory of K/V rows: reserved for running requests, and kept for conversations.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "cache/block_cache.hpp"
#include "fastdllm/engine.hpp"

namespace fastdllm {

/// Half of the machine's physical memory, in bytes: the default limit.
[[nodiscard]] std::int64_t half_of_memory() noexcept;

/// Bytes of a row's keys and values in all layers.
[[nodiscard]] std::int64_t row_bytes(const PackageInfo& package) noexcept;

/// The most K/V rows that a request holds at a time, for so many rows of a batch.
struct CacheNeeds {
  std::int64_t rows = 0;
  std::int64_t batch = 1;
  std::int64_t pairs = 0;  ///< the most rows fed times rows attended to, of a pass
};

/// A request's part of the pool: memory that counts when a request is admitted.
struct Lease {
  CacheNeeds needs;
  std::int64_t own = 0;      ///< bytes that its cache may come to hold
  std::int64_t stacked = 0;  ///< bytes of the copy side by side with others'
  std::int64_t scores = 0;   ///< bytes of a pass's attention scores, where the graph holds them all
  std::int64_t charged = 0;  ///< bytes set aside, from admission on
  bool admitted = false;
  std::unique_ptr<BlockCache> cache;  ///< from open() on

  [[nodiscard]] std::int64_t bytes() const noexcept { return own + stacked + scores; }
};

/// Reserves memory for requests within `cache_bytes`, and keeps the caches of those that have
/// ended, oldest first, for requests that begin with the same tokens: at most max_batch of them,
/// until their memory is needed. For one thread only, but for lease() and used_bytes().
class CachePool {
 public:
  /// session, package: borrowed. shares_runs: requests have copies of their rows side by side.
  CachePool(Session& session, const PackageInfo& package, const EngineLimits& limits,
            bool shares_runs);

  /// What a request will need; nothing is reserved yet. Errors: Error{bad_config}, which begins
  /// with `who`, for more than there can ever be.
  [[nodiscard]] Lease lease(const CacheNeeds& needs, std::string_view who = "the request") const;
  /// Reserves the lease's memory. False: there is not enough now.
  [[nodiscard]] bool admit(Lease& lease) noexcept;
  /// Gives an admitted lease its cache: the former one that it can go on from best, else one to
  /// write over, else a new one. rows_to_reuse: committed rows of a cache that it would go on from.
  void open(Lease& lease, const std::function<std::int64_t(const BlockCache&)>& rows_to_reuse);
  /// Ends a lease, admitted or not. Its cache is kept.
  void give_back(Lease& lease);

  /// Reserved for the admitted requests.
  [[nodiscard]] std::int64_t used_bytes() const noexcept { return used_bytes_.load(); }
  /// Of these, for the copies side by side.
  [[nodiscard]] std::int64_t stacked_bytes() const noexcept { return stacked_bytes_; }
  [[nodiscard]] std::int64_t num_idle() const noexcept { return std::ssize(idle_); }

 private:
  [[nodiscard]] std::int64_t excess_bytes(const BlockCache& cache, const Lease& lease) const;
  [[nodiscard]] std::unique_ptr<BlockCache> new_cache(const CacheNeeds& needs);
  [[nodiscard]] std::unique_ptr<BlockCache> take_idle(
      const CacheNeeds& needs, const std::function<std::int64_t(const BlockCache&)>& rows_to_reuse);
  void evict() noexcept;

  Session& session_;
  const PackageInfo& package_;
  const std::int64_t max_caches_;
  const std::int64_t cache_bytes_;
  const bool shares_runs_;
  const bool block_causal_;
  const std::int64_t score_bytes_;                 // of a pair; 0: nothing to count
  std::vector<std::unique_ptr<BlockCache>> idle_;  // of requests that have ended, oldest first
  std::uint64_t clock_ = 0;
  std::int64_t num_admitted_ = 0;
  std::int64_t stacked_bytes_ = 0;
  std::atomic<std::int64_t> used_bytes_{0};  // read by every thread
};

}  // namespace fastdllm
