// Many requests on one engine: who shares a graph run, who is next, who is refused, how they end.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <latch>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "fastdllm/engine.hpp"
#include "scheduler_helpers.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

TEST(Scheduler, RequestsWhosePassesHaveTheSameShapesShareARunAndPaddingIsMasked) {
  Scripted s;
  const GenerationConfig config{
      .max_new_tokens = 16, .block_length = 8, .steps_per_block = 4, .cache = CacheMode::dual};
  std::vector<Request> others;
  const Request first = s.engine.submit(prompt(9), config, at_first_commit([&] {
                                          others.push_back(s.engine.submit(prompt(12), config));
                                          others.push_back(s.engine.submit(prompt(14), config));
                                        }));
  EXPECT_EQ(first.result().token_ids, expected(9, 16));
  EXPECT_EQ(others[0].result().token_ids, expected(12, 16));
  EXPECT_EQ(others[1].result().token_ids, expected(14, 16));
  EXPECT_EQ(others[1].result().num_passes, 8);

  std::int64_t runs_of_three = 0;
  for (const RecordedPass& pass : s.session->passes) {
    if (pass.batch == 1) continue;
    runs_of_three += pass.batch == 3;
    EXPECT_EQ(pass.past_length, 24);  // 17, 20 and 22 rows that are seen
    EXPECT_EQ(pass.present_length, 0);
    for (std::int64_t b = 0; b < pass.batch; ++b) {
      const std::int64_t position = pass.positions[static_cast<std::size_t>(b * 8)];
      const std::int64_t length = position <= 14 ? position : position - 8;  // of the prompt
      for (std::int64_t i = 0; i < pass.attended; ++i) {
        const bool seen = i < length + 8 || i >= 24;
        EXPECT_EQ(pass.mask[static_cast<std::size_t>(b * pass.attended + i)], seen ? 1 : 0);
      }
    }
  }
  EXPECT_GE(runs_of_three, 2);
}

TEST(Scheduler, ARequestGetsItsTokensAndPassesWhateverRunsBesideIt) {
  for (const CacheMode cache : {CacheMode::none, CacheMode::prefix, CacheMode::dual}) {
    Scripted s({.max_batch = 3});
    std::vector<Request> requests;
    std::vector<std::int64_t> lengths{3, 30, 9, 0, 17, 9, 64};
    for (const std::int64_t length : lengths) {
      requests.push_back(s.engine.submit(
          prompt(static_cast<std::size_t>(length)),
          {.max_new_tokens = 20, .block_length = 8, .threshold = 0.7, .cache = cache}));
    }
    for (std::size_t i = 0; i < requests.size(); ++i) {
      Scripted alone;
      const auto solo = alone.engine.generate(
          prompt(static_cast<std::size_t>(lengths[i])),
          {.max_new_tokens = 20, .block_length = 8, .threshold = 0.7, .cache = cache});
      EXPECT_EQ(requests[i].result().token_ids, solo.token_ids);
      EXPECT_EQ(requests[i].result().num_passes, solo.num_passes);
      EXPECT_EQ(requests[i].result().stats.rows_computed, solo.stats.rows_computed);
    }
  }
}

TEST(Scheduler, AShortRequestIsNotHeldUpByALongOne) {
  Scripted s;
  std::size_t long_passes_before = 0;
  Request small;
  std::atomic<bool> small_done{false};
  std::size_t long_passes = 0;
  const Request large = s.engine.submit(
      prompt(200), {.max_new_tokens = 200, .block_length = 8, .cache = CacheMode::prefix},
      [&](const CommitEvent& event) {
        if (event.step == 20) {
          long_passes_before = long_passes;
          small = s.engine.submit(prompt(4), {.max_new_tokens = 8, .block_length = 8}, {},
                                  [&] { small_done = true; });
        }
        if (!small_done) ++long_passes;
        return true;
      });
  EXPECT_EQ(large.result().token_ids.size(), 200U);
  EXPECT_EQ(small.result().num_passes, 8);
  EXPECT_LE(long_passes - long_passes_before, 2U);
}

// What comes and goes all the time shares runs as far as its lengths allow. The count is this
// rule's; with half the patience there were 672 runs, with places left empty 610.
TEST(Scheduler, ShortAnswersThatComeAndGoShareTheirRuns) {
  Scripted s({.max_batch = 8});
  std::mt19937 dice(0);
  std::vector<Ids> prompts;
  for (int i = 0; i < 400; ++i) prompts.push_back(prompt(20 + dice() % 61));
  std::vector<Request> requests;
  std::latch last(1);
  std::function<void()> more = [&] {
    const std::size_t next = requests.size();
    if (next == prompts.size()) return;
    const GenerationConfig config{.max_new_tokens = 32,
                                  .steps = 2 + static_cast<std::int64_t>(next % 2),
                                  .cache = CacheMode::dual,
                                  .ignore_eos = true};
    requests.push_back(s.engine.submit(prompts[next], config, {}, more));
    if (requests.size() == prompts.size()) last.count_down();
  };
  const Request first = s.engine.submit(prompt(20), {.max_new_tokens = 1}, at_first_commit([&] {
                                          for (int i = 0; i < 16; ++i) more();
                                        }));
  static_cast<void>(first.result());
  last.wait();
  for (const Request& request : requests) static_cast<void>(request.result());
  EXPECT_LE(s.session->runs, 610);
}

TEST(Scheduler, AFreedPlaceIsTakenInTheVeryNextPass) {
  Scripted s({.max_batch = 2});
  std::string order;
  const auto note = [&](char name) {
    return [&order, name](const CommitEvent& event) {
      order += name + std::to_string(event.step) + ' ';
      return true;
    };
  };
  const GenerationConfig one_pass{.max_new_tokens = 1, .cache = CacheMode::none};
  std::vector<Request> others;
  const Request first = s.engine.submit(
      prompt(30), {.max_new_tokens = 3, .cache = CacheMode::none}, [&](const CommitEvent& event) {
        if (event.step == 0) {
          for (const char name : {'A', 'C', 'D'}) {
            others.push_back(s.engine.submit(prompt(4), one_pass, note(name)));
          }
        }
        return note('B')(event);
      });
  static_cast<void>(first.result());
  for (const Request& request : others) static_cast<void>(request.result());
  EXPECT_EQ(order, "B0 A0 C0 D0 B1 B2 ");
}

TEST(Scheduler, NoPlaceIsEmptyInAPassWhileARequestWaits) {
  Scripted s({.max_batch = 3});
  std::int64_t runs = 0, empty_places = 0;
  s.session->before_run = [&](std::int64_t) {
    const EngineLoad load = s.engine.load();
    ++runs;
    empty_places += load.waiting > 0 ? 3 - load.running : 0;
  };
  std::vector<Request> requests;
  const Request first = s.engine.submit(
      prompt(2), {.max_new_tokens = 8}, at_first_commit([&] {
        for (std::size_t i = 0; i < 60; ++i) {
          const GenerationConfig config{.max_new_tokens = 1 + static_cast<std::int64_t>(i * 7 % 5),
                                        .block_length = 4,
                                        .cache = static_cast<CacheMode>(i % 4)};
          const bool fails = i % 9 == 4, aborts = i % 9 == 7;
          requests.push_back(s.engine.submit(prompt(i % 11), config, [=](const CommitEvent&) {
            if (fails) throw std::runtime_error("scripted");
            return !aborts;
          }));
          if (i % 9 == 2) requests.back().cancel();
        }
      }));
  static_cast<void>(first.result());
  for (const Request& request : requests) static_cast<void>(error_of(request));
  EXPECT_GT(runs, 20);
  EXPECT_EQ(empty_places, 0);
}

TEST(Scheduler, ALongRequestIsNotStarvedByShortOnes) {
  Scripted s({.max_batch = 2});
  std::atomic<std::int64_t> long_passes{0};
  std::atomic<bool> enough{false};
  std::function<void()> again;
  std::atomic<std::int64_t> served{0};
  std::vector<Request> shorts;  // of the engine's thread
  again = [&] {
    if (enough || ++served > 2000) return;
    static_cast<void>(s.engine.submit(prompt(4), {.max_new_tokens = 8}, {}, again));
  };
  const Request large = s.engine.submit(prompt(100), {.max_new_tokens = 40, .block_length = 8},
                                        [&](const CommitEvent& event) {
                                          if (event.step == 0) again();
                                          ++long_passes;
                                          return true;
                                        });
  EXPECT_EQ(large.result().token_ids.size(), 40U);
  enough = true;
  EXPECT_LE(served, 2000) << "the long request only ran when the short ones had ended";
  EXPECT_GE(served, 20);
}

TEST(Scheduler, CancellingEndsARequestBetweenTwoPassesOrBeforeItsFirst) {
  Scripted s({.max_batch = 1});
  Request first, waiting;
  std::latch assigned(1);
  first = s.engine.submit(prompt(3), {.max_new_tokens = 40}, [&](const CommitEvent& event) {
    if (event.step == 0) {
      assigned.wait();
      waiting = s.engine.submit(prompt(3), {.max_new_tokens = 4});
    }
    if (event.step == 2) {
      waiting.cancel();
      first.cancel();
    }
    return true;
  });
  assigned.count_down();
  const GenerationResult result = first.result();
  EXPECT_EQ(result.finish_reason, FinishReason::abort);
  EXPECT_EQ(result.token_ids, expected(3, 3));
  EXPECT_EQ(waiting.result().finish_reason, FinishReason::abort);
  EXPECT_TRUE(waiting.result().token_ids.empty());
  EXPECT_EQ(waiting.result().num_passes, 0);
  first.cancel();  // has ended: nothing changes
  EXPECT_EQ(first.result().token_ids, result.token_ids);
}

// Requests of every kind that end by themselves, with the end that each has.
struct Ending {
  std::string name;
  PackageInfo package;
  GenerationConfig config;
  FinishReason reason;
};

std::vector<Ending> endings() {
  const auto with = [](GenerationConfig config) {
    config.max_new_tokens = 8;
    config.block_length = 4;
    return config;
  };
  const Ids five{5};
  using enum FinishReason;
  return {{"one token a pass", scripted_package(), with({}), length},
          {"a block a pass", scripted_package(), with({.threshold = 0.1}), length},
          {"a stop token", scripted_package(), with({.stop_token_ids = five}), stop},
          {"a stop token's block", scripted_package(),
           with({.stop_token_ids = five, .stop_at = StopAt::block}), stop},
          {"tokens that are edited", scripted_package(), with({.editing_threshold = 0.9}), length},
          {"a deferred window", scripted_package(), with({.threshold = 0.1, .deferred_window = 6}),
           length},
          {"a block-causal model", block_causal_package(), with({}), length},
          {"a seed token that fills the answer",
           block_causal_package(true),
           {.max_new_tokens = 1, .block_length = 4},
           length}};
}

TEST(Scheduler, ARequestCancelledInThePassThatCompletesItKeepsItsEnd) {
  for (const Ending& ending : endings()) {
    for (const bool by_callback : {false, true}) {
      SCOPED_TRACE(ending.name + (by_callback ? ", the callback says false" : ", cancelled"));
      Scripted s(ending.package);
      const GenerationResult whole = s.engine.generate(prompt(4), ending.config);
      ASSERT_EQ(whole.finish_reason, ending.reason);
      std::int64_t told = 0, events = 0;
      static_cast<void>(
          s.engine.generate(prompt(4), ending.config, [&](const CommitEvent&) { return ++told; }));

      Request request;
      std::latch assigned(1);
      request = s.engine.submit(prompt(4), ending.config, [&](const CommitEvent&) {
        if (++events < told) return true;
        assigned.wait();
        if (!by_callback) request.cancel();
        return !by_callback;
      });
      assigned.count_down();

      EXPECT_EQ(request.result().finish_reason, ending.reason);
      EXPECT_EQ(request.result().token_ids, whole.token_ids);
      EXPECT_EQ(request.result().num_passes, whole.num_passes);
    }
  }
}

TEST(Scheduler, ARequestWhoseEngineGoesInThePassThatCompletesItKeepsItsEnd) {
  Request request;
  {
    Scripted s;
    std::latch completing(1);
    request = s.engine.submit(prompt(4), {.max_new_tokens = 1}, [&](const CommitEvent&) {
      completing.count_down();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the engine is told to stop
      return true;
    });
    completing.wait();
  }
  EXPECT_EQ(request.result().finish_reason, FinishReason::length);
}

TEST(Scheduler, WhatACallbackThrowsEndsItsOwnRequestOnly) {
  Scripted s;
  Request other;
  const Request first = s.engine.submit({}, {.max_new_tokens = 5}, [&](const CommitEvent&) -> bool {
    other = s.engine.submit({}, {.max_new_tokens = 5});
    throw std::runtime_error("the disk is full");
  });
  EXPECT_EQ(error_of(first), "the disk is full");
  EXPECT_EQ(error_of(first), "the disk is full");  // also when asked again
  EXPECT_EQ(other.result().token_ids, expected(0, 5));
}

TEST(Scheduler, AFailedRunEndsTheRequestsThatShareItAndNoOther) {
  Scripted s;
  const GenerationConfig config{.max_new_tokens = 16, .block_length = 8, .cache = CacheMode::dual};
  std::vector<Request> pair;
  s.session->before_run = [&](std::int64_t batch) {
    if (batch == 2) throw Error(ErrorCode::backend, "out of memory");
  };
  const Request other = s.engine.submit(prompt(100), {.max_new_tokens = 8}, at_first_commit([&] {
                                          pair.push_back(s.engine.submit(prompt(9), config));
                                          pair.push_back(s.engine.submit(prompt(12), config));
                                        }));
  EXPECT_EQ(other.result().token_ids, expected(100, 8));
  EXPECT_EQ(error_of(pair[0]), "out of memory");
  EXPECT_EQ(error_of(pair[1]), "out of memory");
  s.session->before_run = {};
  EXPECT_EQ(s.engine.generate(prompt(9), config).token_ids, expected(9, 16));
}

TEST(Scheduler, DestroyingTheEngineEndsItsRequests) {
  std::vector<Request> requests;
  {
    Scripted s({.max_batch = 2});
    // 400 passes of this length: none ends by itself before the engine is destroyed.
    s.session->before_run = [](std::int64_t) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    };
    for (int i = 0; i < 5; ++i) requests.push_back(s.engine.submit({}, {.max_new_tokens = 400}));
    while (s.session->runs.load() == 0) std::this_thread::yield();
  }
  for (const Request& request : requests) {
    const GenerationResult result = request.result();
    EXPECT_EQ(result.finish_reason, FinishReason::abort);
    EXPECT_EQ(result.token_ids, expected(0, std::ssize(result.token_ids)));
  }
}

TEST(Scheduler, TheEnginesOwnThreadMustNotWaitForIt) {
  Scripted s;
  Request request;
  std::string message;
  request = s.engine.submit({}, {.max_new_tokens = 2}, at_first_commit([&] {
                              const Request inner = s.engine.submit({}, {.max_new_tokens = 2});
                              message = error_of(inner);
                            }));
  EXPECT_EQ(request.result().token_ids.size(), 2U);
  EXPECT_NE(message.find("the engine's own thread would wait for itself"), std::string::npos);
}

TEST(Scheduler, ConversationsOfABlockCausalModelKeepTheirRowsSideBySide) {
  Scripted s(block_causal_package());
  const GenerationConfig config{.max_new_tokens = 8, .threshold = 0.1};
  Ids one = prompt(8);
  Ids two(8, 2);
  for (Ids* chat : {&one, &two}) {
    const auto result = s.engine.generate(*chat, config);
    EXPECT_EQ(result.stats.reused_rows, 0);
    chat->insert(chat->end(), result.token_ids.begin(), result.token_ids.end());
  }
  for (Ids* chat : {&one, &two}) {  // 12 of 16: the last block was decoded, not committed
    EXPECT_EQ(s.engine.generate(*chat, config).stats.reused_rows, 12);
  }
}

TEST(Scheduler, ServesManyThreadsThatSubmitWaitAndCancel) {
  Scripted s({.max_batch = 4, .max_waiting = 1000});
  std::vector<std::thread> threads;
  std::atomic<int> done{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        const auto length = static_cast<std::size_t>((i * 7 + t) % 23);
        const GenerationConfig config{.max_new_tokens = 1 + (i + t) % 19,
                                      .block_length = 8,
                                      .threshold = i % 2 == 0 ? std::optional(0.75) : std::nullopt,
                                      .cache = static_cast<CacheMode>(i % 4)};
        if (i % 5 == 4) {
          const Request request = s.engine.submit(prompt(length), config, {}, [&] { ++done; });
          request.cancel();
          static_cast<void>(request.result());
        } else {
          EXPECT_EQ(s.engine.generate(prompt(length), config).token_ids,
                    expected(static_cast<std::int64_t>(length), config.max_new_tokens));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  static_cast<void>(s.engine.generate({}, {.max_new_tokens = 1}));
  EXPECT_EQ(done, 32);
}

}  // namespace
}  // namespace fastdllm::testing
