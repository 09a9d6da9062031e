#include "loop/cache_pool.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {

std::int64_t half_of_memory() noexcept {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGE_SIZE);
  return pages > 0 && page_bytes > 0 ? std::int64_t{pages} * page_bytes / 2 : INT64_MAX;
}

std::int64_t row_bytes(const PackageInfo& package) noexcept {
  return 2 * package.num_layers * package.num_kv_heads * package.head_dim *
         static_cast<std::int64_t>(size_of(package.cache_type));
}

namespace {

// A compiled engine has its memory from the beginning, and what a GPU's kernels hold is not known.
std::int64_t score_bytes_of(const Session& session, const PackageInfo& package) {
  const bool compiled = session.largest_run().rows != INT64_MAX;
  return compiled || session.free_device_bytes() > 0 ? 0 : package.score_bytes;
}

std::int64_t product(std::int64_t a, std::int64_t b) noexcept {
  constexpr std::int64_t most = INT64_MAX / 4;  // sums of some have room
  return b != 0 && a > most / b ? most : a * b;
}

}  // namespace

CachePool::CachePool(Session& session, const PackageInfo& package, const EngineLimits& limits,
                     bool shares_runs)
    : session_(session),
      package_(package),
      max_caches_(limits.max_batch),
      cache_bytes_(limits.cache_bytes),
      shares_runs_(shares_runs),
      block_causal_(package.attention == AttentionKind::block_causal),
      score_bytes_(score_bytes_of(session, package)) {}

// A bidirectional request holds what its refresh left, a block-causal one that twice while it
// commits. Requests that share runs have a copy side by side, and scores each.
Lease CachePool::lease(const CacheNeeds& needs, std::string_view who) const {
  const std::int64_t bytes = needs.rows * row_bytes(package_);
  Lease lease;
  lease.needs = needs;
  lease.own = bytes * needs.batch * (block_causal_ ? 2 : 1);
  lease.stacked = shares_runs_ && needs.batch == 1 ? bytes : 0;
  lease.scores = product(needs.pairs, needs.batch * score_bytes_);
  if (lease.bytes() > cache_bytes_ && lease.scores > 0) {
    throw Error(ErrorCode::bad_config,
                concat(who, " may need ", lease.bytes(), " bytes, ", lease.scores,
                       " of them for attention scores, which this graph holds all at once; "
                       "expected at most cache_bytes, ",
                       cache_bytes_,
                       " (a package exported as fp32 or bf16 with opset 23 holds no such scores)"));
  }
  if (lease.bytes() > cache_bytes_) {
    throw Error(ErrorCode::bad_config,
                concat(who, " may need ", lease.bytes(), " bytes of cache for ", needs.rows,
                       " rows; expected at most cache_bytes, ", cache_bytes_,
                       " (cache 'none' needs none)"));
  }
  return lease;
}

bool CachePool::admit(Lease& lease) noexcept {
  if (lease.bytes() > cache_bytes_ - used_bytes_) return false;
  lease.charged = lease.bytes();
  lease.admitted = true;
  used_bytes_ += lease.charged;
  stacked_bytes_ += lease.stacked;
  ++num_admitted_;
  return true;
}

// A former cache keeps the memory that a larger request had: it is charged as well, where there is
// room for it.
void CachePool::open(Lease& lease,
                     const std::function<std::int64_t(const BlockCache&)>& rows_to_reuse) {
  lease.cache = take_idle(lease.needs, rows_to_reuse);
  if (!lease.cache || excess_bytes(*lease.cache, lease) > cache_bytes_ - used_bytes_) {
    lease.cache = new_cache(lease.needs);
  }
  const std::int64_t more = excess_bytes(*lease.cache, lease);
  lease.charged += more;
  used_bytes_ += more;
  evict();
}

void CachePool::give_back(Lease& lease) {
  if (std::exchange(lease.admitted, false)) {
    used_bytes_ -= std::exchange(lease.charged, 0);
    stacked_bytes_ -= lease.stacked;
    --num_admitted_;
  }
  if (!lease.cache) return;
  if (lease.cache->batch() > 1) lease.cache->drop_committed(0);  // of a masked prompt
  idle_.push_back(std::move(lease.cache));
}

std::int64_t CachePool::excess_bytes(const BlockCache& cache, const Lease& lease) const {
  return cache.bytes_with(lease.needs.rows, block_causal_) - lease.own;
}

std::unique_ptr<BlockCache> CachePool::new_cache(const CacheNeeds& needs) {
  return std::make_unique<BlockCache>(session_, package_, needs.batch, clock_);
}

std::unique_ptr<BlockCache> CachePool::take_idle(
    const CacheNeeds& needs, const std::function<std::int64_t(const BlockCache&)>& rows_to_reuse) {
  const auto usable = [&](const std::unique_ptr<BlockCache>& cache) {
    return cache->batch() == needs.batch;
  };
  auto best = idle_.end();
  std::int64_t most = 0;
  for (auto cache = idle_.begin(); cache != idle_.end(); ++cache) {
    const std::int64_t rows = usable(*cache) ? rows_to_reuse(**cache) : 0;
    if (rows <= most) continue;
    most = rows;
    best = cache;
  }
  if (best == idle_.end()) {
    best = std::find_if(idle_.begin(), idle_.end(), [&](const auto& cache) {
      return usable(cache) && cache->committed_length() == 0;
    });
  }
  const bool full = num_idle() + num_admitted_ > max_caches_;
  if (best == idle_.end() && full) best = std::find_if(idle_.begin(), idle_.end(), usable);
  if (best == idle_.end()) return nullptr;
  std::unique_ptr<BlockCache> cache = std::move(*best);
  idle_.erase(best);
  return cache;
}

void CachePool::evict() noexcept {
  const auto bytes = [&] {
    std::int64_t total = used_bytes_;
    for (const std::unique_ptr<BlockCache>& cache : idle_) total += cache->bytes();
    return total;
  };
  while (!idle_.empty() && (num_idle() > max_caches_ || bytes() > cache_bytes_)) {
    idle_.erase(idle_.begin());
  }
}

}  // namespace fastdllm
