// A backend whose answers depend on everything that a row attends to, and on nothing else.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "contract_session.hpp"

namespace fastdllm::testing {

/// Bytes of cache that sessions have given out and not got back.
struct CacheBytes {
  std::atomic<std::int64_t> live{0}, peak{0};

  void add(std::int64_t bytes) noexcept {
    const std::int64_t now = live += bytes;
    if (now > peak) peak = now;
  }
};

/// What a row predicts is a hash of the (position, token) pairs that it sees, cached or fed, in
/// whatever order: a request that saw a row of another one, or not a row of its own, would answer
/// otherwise. Every element of a row's K/V says whose it is, of which layer and which part; a run
/// that is given others throws std::logic_error. Not thread-safe, the atomics apart.
class HashingSession final : public ContractSession {
 public:
  explicit HashingSession(const PackageInfo& package);

  std::atomic<std::int64_t> started{0};  ///< runs
  std::function<void()> before_run;
  std::shared_ptr<CacheBytes> cache = std::make_shared<CacheBytes>();

  std::unique_ptr<Memory> allocate_cache(std::size_t bytes) override;
  void run() override;
  std::string description() const override { return "hashing"; }

 private:
  void read_past(std::int64_t batch, const std::uint8_t* mask, std::int64_t mask_rows);
  void write_present(const std::string& suffix, std::int64_t part, std::int64_t fed);
  void predict(std::size_t index, std::uint64_t context);

  std::int64_t vocab_size_, mask_token_id_;
  std::vector<std::int64_t> past_, fed_;  // [batch, rows]: what each row holds
  std::vector<double> weights_;
};

}  // namespace fastdllm::testing
