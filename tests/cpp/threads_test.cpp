// One engine and many threads: answers, cancelling, destruction, memory. The session's answers tell
// whose rows a request saw; see hashing_session.hpp. Meant for ThreadSanitizer too.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fastdllm/engine.hpp"
#include "hashing_session.hpp"
#include "mixed_requests.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

using Ids = std::vector<std::int32_t>;

struct Hashing {
  explicit Hashing(const PackageInfo& package, const EngineLimits& limits = {})
      : Hashing(package, std::make_unique<HashingSession>(package), limits) {}

  HashingSession* session;
  Engine engine;

 private:
  Hashing(const PackageInfo& package, std::unique_ptr<HashingSession> made,
          const EngineLimits& limits)
      : session(made.get()), engine(package, std::move(made), limits) {}
};

PackageInfo package_of(const std::string& model) {
  if (model == "bidirectional") return scripted_package();
  if (model == "block_causal") return block_causal_package();
  PackageInfo package = block_causal_package(true);
  package.block_length = 8;
  package.sub_block_length = 4;
  return package;
}

class Threads : public ::testing::TestWithParam<const char*> {
 protected:
  Threads() { package_.head_dim = 8; }  // rows of 64 bytes, as memory is aligned

  PackageInfo package_ = package_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Models, Threads,
                         ::testing::Values("bidirectional", "block_causal", "sub_blocks"),
                         [](const auto& model) { return std::string(model.param); });

TEST_P(Threads, TwoHundredMixedRequestsOfTwoThreadsEqualTheSerialAnswers) {
  Hashing serial(package_, {.max_batch = 1});
  Hashing shared(package_);
  const std::vector<Asked> asked = mixed_requests(package_, 200, true);
  const std::vector<GenerationResult> alone = answer_all(serial.engine, asked);

  const auto wrong = differences_side_by_side(shared.engine, asked, alone, 2, 100);

  EXPECT_EQ(wrong, std::vector<std::string>{});
}

// A block-causal engine keeps the last max_batch conversations, each in the memory that the largest
// one left: with two of them that is soon had.
TEST_P(Threads, AThousandRequestsHoldTheMemoryOfTheFirstThreeHundred) {
  Hashing h(package_, {.max_batch = 2});
  const std::vector<Asked> asked = mixed_requests(package_, 100, true);
  std::vector<std::int64_t> live, peak;
  for (int round = 0; round < 10; ++round) {
    static_cast<void>(answer_all(h.engine, asked));
    live.push_back(h.session->cache->live);
    peak.push_back(h.session->cache->peak);
  }
  EXPECT_GT(live[2], 0);
  EXPECT_LE(live[9], live[2] * 101 / 100);
  EXPECT_LE(peak[9], peak[2] * 101 / 100);
}

TEST_P(Threads, SideBySideRequestsNeverHoldMoreThanTheirBudget) {
  Hashing serial(package_, {.max_batch = 1});
  const std::int64_t budget = 200'000;  // the largest may need more than half of it
  Hashing shared(package_, {.cache_bytes = budget});
  const std::vector<Asked> asked = mixed_requests(package_, 100, true);
  const std::vector<GenerationResult> alone = answer_all(serial.engine, asked);

  const auto wrong = differences_side_by_side(shared.engine, asked, alone, 4, 100);

  EXPECT_EQ(wrong, std::vector<std::string>{});
  EXPECT_LE(shared.session->cache->peak, budget);
}

TEST(Abort, FromAnotherThreadNoPassFollowsTheOneUnderWay) {
  Hashing h(scripted_package());
  std::latch fifth(1), cancelled(1);
  h.session->before_run = [&] {
    if (h.session->started != 5) return;
    fifth.count_down();
    cancelled.wait();
  };
  const Request request =
      h.engine.submit(Ids{1, 2, 3}, {.max_new_tokens = 200, .ignore_eos = true});
  fifth.wait();
  request.cancel();
  cancelled.count_down();
  EXPECT_EQ(request.result().finish_reason, FinishReason::abort);
  EXPECT_EQ(request.result().num_passes, 5);
  EXPECT_EQ(h.session->started, 5);
}

TEST(Abort, FromAnotherThreadAtAnyMomentOnePassFollowsAtMost) {
  Hashing h(scripted_package());
  for (int i = 0; i < 100; ++i) {
    const std::int64_t before = h.session->started;
    const Request request =
        h.engine.submit(Ids{1, 2, 3}, {.max_new_tokens = 400, .ignore_eos = true});
    while (h.session->started < before + i % 7) std::this_thread::yield();
    request.cancel();
    const std::int64_t at_cancel = h.session->started;
    EXPECT_EQ(request.result().finish_reason, FinishReason::abort);
    EXPECT_LE(h.session->started, at_cancel + 1);
  }
}

TEST(Abort, OfOneOfTwoThatShareRunsLeavesTheOtherItsAnswer) {
  Hashing h(scripted_package());
  const GenerationConfig config{.max_new_tokens = 40, .block_length = 8, .cache = CacheMode::dual};
  const Ids ids{1, 2, 3, 4};
  const GenerationResult alone = h.engine.generate(ids, config);
  for (int i = 0; i < 30; ++i) {
    const Request stays = h.engine.submit(ids, config);
    const Request leaves = h.engine.submit(ids, config);
    std::this_thread::sleep_for(std::chrono::microseconds(20 * i));
    leaves.cancel();
    EXPECT_EQ(stays.result().token_ids, alone.token_ids);
    EXPECT_EQ(stays.result().logprobs, alone.logprobs);
  }
}

TEST(OnDone, HasReturnedBeforeAnotherThreadHasTheResult) {
  Hashing h(scripted_package());
  for (int i = 0; i < 20; ++i) {
    std::latch assigned(1), begun(1);
    std::atomic<bool> returned{false};
    Request request;
    request = h.engine.submit(Ids{1}, {.max_new_tokens = 3}, {}, [&] {
      assigned.wait();
      EXPECT_TRUE(request.wait_for({}));  // here it has ended
      EXPECT_EQ(request.result().token_ids.size(), 3U);
      begun.count_down();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      returned = true;
    });
    assigned.count_down();
    begun.wait();
    EXPECT_TRUE(request.done());
    EXPECT_FALSE(request.wait_for({}) && !returned);
    EXPECT_EQ(request.result().token_ids.size(), 3U);
    EXPECT_TRUE(returned);
  }
}

// Callers of all kinds while the engine goes: who waits, who is called back, who cancels.
TEST(Destruction, EndsWhatRunsAndWhatWaitsWhileOtherThreadsWaitForIt) {
  for (int i = 0; i < 30; ++i) {
    std::atomic<int> done{0};
    std::vector<std::thread> waiting;
    std::atomic<int> ended{0};
    constexpr int count = 12;
    {
      Hashing h(scripted_package(), {.max_batch = 3});
      for (int n = 0; n < count; ++n) {
        Request request = h.engine.submit(
            Ids{1, 2, 3}, {.max_new_tokens = 300, .cache = CacheMode::dual, .ignore_eos = true},
            [](const CommitEvent&) { return true; }, [&] { ++done; });
        waiting.emplace_back([&, n, request = std::move(request)] {
          if (n % 4 == 3) request.cancel();
          const FinishReason reason = request.result().finish_reason;
          ended += reason == FinishReason::abort || reason == FinishReason::length ? 1 : 0;
        });
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100 * (i % 5)));
    }
    EXPECT_EQ(done, count);  // no callback comes after the engine
    for (std::thread& thread : waiting) thread.join();
    EXPECT_EQ(ended, count);
  }
}

TEST(Destruction, OnTheEnginesOwnThreadEndsTheOtherRequests) {
  auto h = std::make_unique<Hashing>(scripted_package());
  std::latch assigned(1);
  Request other;
  const Request request = h->engine.submit(Ids{1}, {.max_new_tokens = 300, .ignore_eos = true},
                                           [&, first = true](const CommitEvent&) mutable {
                                             assigned.wait();
                                             if (std::exchange(first, false)) h.reset();
                                             return true;
                                           });
  other = h->engine.submit(Ids{1, 2}, {.max_new_tokens = 300, .ignore_eos = true});
  assigned.count_down();
  EXPECT_EQ(request.result().finish_reason, FinishReason::abort);
  EXPECT_EQ(other.result().finish_reason, FinishReason::abort);
}

TEST(Destruction, OfAnEngineThatIsMovedAwayTouchesNothing) {
  Hashing h(scripted_package());
  const Request request = h.engine.submit(Ids{1}, {.max_new_tokens = 40, .ignore_eos = true});
  Engine moved = std::move(h.engine);
  EXPECT_EQ(request.result().finish_reason, FinishReason::length);
  EXPECT_EQ(moved.generate(Ids{1}, {.max_new_tokens = 4, .ignore_eos = true}).token_ids.size(), 4U);
}

}  // namespace
}  // namespace fastdllm::testing
