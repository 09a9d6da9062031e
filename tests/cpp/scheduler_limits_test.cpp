// Which requests the scheduler refuses: places, waiting, memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "fastdllm/engine.hpp"
#include "scheduler_helpers.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

TEST(Scheduler, RefusesMoreThanMayWait) {
  Scripted s({.max_batch = 1, .max_waiting = 1});
  std::string message;
  ErrorCode code = ErrorCode::backend;
  const Request first =
      s.engine.submit({}, {.max_new_tokens = 3}, at_first_commit([&] {
                        static_cast<void>(s.engine.submit({}, {.max_new_tokens = 3}));
                        try {
                          static_cast<void>(s.engine.submit({}, {.max_new_tokens = 3}));
                        } catch (const Error& error) {
                          message = error.what();
                          code = error.code();
                        }
                      }));
  EXPECT_EQ(first.result().token_ids.size(), 3U);
  EXPECT_EQ(code, ErrorCode::overloaded);
  EXPECT_EQ(message, "2 requests run or wait; expected fewer than max_batch + max_waiting, 1 + 1");
}

// A row of K/V: two layers, keys and values, two heads of four floats. A request of 40 positions in
// blocks of 8 may hold 40 rows, and 40 more side by side with others'.
constexpr std::int64_t row_bytes = 2 * 2 * 2 * 4 * 4;

TEST(Scheduler, TellsWhatRunsAndWaitsAndTheMemorySetAside) {
  Scripted s({.max_batch = 2, .max_waiting = 5, .cache_bytes = 1 << 20});
  const GenerationConfig config{.max_new_tokens = 16, .block_length = 8, .cache = CacheMode::dual};
  std::vector<Request> others;
  EngineLoad first, both;
  std::int64_t passes = 0;
  const Request request = s.engine.submit(prompt(4), config, [&](const CommitEvent&) {
    if (++passes == 1) {
      first = s.engine.load();
      for (int i = 0; i < 3; ++i) others.push_back(s.engine.submit(prompt(4), config));
    } else if (passes == 2) {
      both = s.engine.load();
    }
    return true;
  });
  EXPECT_EQ(request.result().token_ids, expected(4, 16));
  for (const Request& other : others) static_cast<void>(other.result());
  EXPECT_EQ(first.running, 1);
  EXPECT_EQ(first.waiting, 0);
  EXPECT_GT(first.cache_bytes_used, 0);
  EXPECT_EQ(first.limits.cache_bytes, 1 << 20);
  EXPECT_EQ(both.running, 2);
  EXPECT_EQ(both.waiting, 2);
  EXPECT_EQ(both.cache_bytes_used, 2 * first.cache_bytes_used);
  const EngineLoad idle = s.engine.load();
  EXPECT_EQ(idle.running + idle.waiting + idle.cache_bytes_used, 0);
}

TEST(Scheduler, TheMemoryBudgetDecidesHowManyRunAtOnce) {
  const GenerationConfig config{.max_new_tokens = 36, .block_length = 8, .threshold = 0.9};
  for (const auto& [budget, most] : {std::pair{80, 1}, std::pair{160, 2}}) {
    Scripted s({.cache_bytes = budget * row_bytes});
    std::vector<Request> others;
    const Request first = s.engine.submit(prompt(4), config, at_first_commit([&] {
                                            for (int i = 0; i < 3; ++i)
                                              others.push_back(s.engine.submit(prompt(4), config));
                                          }));
    EXPECT_EQ(first.result().token_ids.size(), 36U);
    for (const Request& request : others) EXPECT_EQ(request.result().token_ids.size(), 36U);
    std::int64_t largest = 0;
    for (const RecordedPass& pass : s.session->passes) largest = std::max(largest, pass.batch);
    EXPECT_EQ(largest, most);
  }
}

TEST(Scheduler, WhereNoRunsAreSharedNoRoomIsSetAsideForIt) {
  auto session = std::make_unique<ScriptedSession>();
  session->script = own_position;
  session->largest.batch = 1;
  Engine engine(scripted_package(), std::move(session), {.cache_bytes = 40 * row_bytes});
  const GenerationConfig config{.max_new_tokens = 36, .block_length = 8, .cache = CacheMode::dual};
  EXPECT_EQ(engine.generate(prompt(4), config).token_ids.size(), 36U);
}

TEST(Scheduler, RefusesARequestThatCanNeverHaveItsMemory) {
  Scripted s({.cache_bytes = 79 * row_bytes});
  const GenerationConfig config{.max_new_tokens = 36, .block_length = 8, .cache = CacheMode::dual};
  try {
    static_cast<void>(s.engine.submit(prompt(4), config));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_config);
    EXPECT_EQ(
        std::string(error.what()),
        "max_new_tokens is 36 behind a prompt of 4 tokens: the request may need 10240 bytes "
        "of cache for 40 rows; expected at most cache_bytes, 10112 (cache 'none' needs none)");
  }
  EXPECT_TRUE(s.session->passes.empty());
  EXPECT_EQ(s.engine.generate(prompt(4), {.max_new_tokens = 8}).token_ids.size(), 8U);
}

TEST(Scheduler, MemoryThatCannotBeHadEndsTheRequestsThatWantItAndNothingElse) {
  Scripted s;
  const GenerationConfig config{.max_new_tokens = 16, .block_length = 8, .cache = CacheMode::dual};
  bool fails = true;
  // Two requests' rows side by side: 24 rows each.
  s.session->before_allocation = [&](std::size_t bytes) {
    if (fails && bytes == 2 * 24 * row_bytes) throw std::bad_alloc();
  };
  std::vector<Request> pair;
  const auto run_two = [&] {
    pair.clear();
    const Request other = s.engine.submit(prompt(100), {.max_new_tokens = 8}, at_first_commit([&] {
                                            pair.push_back(s.engine.submit(prompt(9), config));
                                            pair.push_back(s.engine.submit(prompt(12), config));
                                          }));
    EXPECT_EQ(other.result().token_ids, expected(100, 8));
  };
  run_two();
  const std::string expected_error =
      "there is no memory for a pass of 2 requests of 8 rows each: expected a smaller max_batch, "
      "cache_bytes or request";
  EXPECT_EQ(error_of(pair[0]), expected_error);
  EXPECT_EQ(error_of(pair[1]), expected_error);
  fails = false;
  run_two();
  EXPECT_EQ(pair[0].result().token_ids, expected(9, 16));
  EXPECT_EQ(pair[1].result().token_ids, expected(12, 16));
}

TEST(Scheduler, NobodyMayWaitIsNoRefusalWhereThereIsRoom) {
  Scripted s({.max_batch = 2, .max_waiting = 0});
  EXPECT_EQ(s.engine.generate({}, {.max_new_tokens = 3}).token_ids.size(), 3U);
  std::vector<Request> others;
  bool refused = false;
  const Request first =
      s.engine.submit({}, {.max_new_tokens = 3}, at_first_commit([&] {
                        others.push_back(s.engine.submit({}, {.max_new_tokens = 3}));
                        try {
                          others.push_back(s.engine.submit({}, {.max_new_tokens = 3}));
                        } catch (const Error&) {
                          refused = true;
                        }
                      }));
  EXPECT_EQ(first.result().token_ids.size(), 3U);
  EXPECT_EQ(others.size(), 1U);
  EXPECT_TRUE(refused);
}

TEST(Scheduler, WhoHasAnAnswerMayAskTheNextWhereNobodyMayWait) {
  Scripted s({.max_batch = 1, .max_waiting = 0});
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(s.engine.generate({}, {.max_new_tokens = 1}).token_ids.size(), 1U);
  }
}

TEST(Scheduler, RefusesLimitsOutOfRange) {
  for (const EngineLimits& limits : {EngineLimits{.max_batch = 0}, EngineLimits{.max_waiting = -1},
                                     EngineLimits{.cache_bytes = -1}}) {
    EXPECT_THROW(Scripted{limits}, Error);
  }
}

}  // namespace
}  // namespace fastdllm::testing
