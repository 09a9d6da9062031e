// The whole decoding method against a scripted backend: no model, no inference library.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "fastdllm/engine.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

using Ids = std::vector<std::int32_t>;
using Rows = std::vector<std::int64_t>;

constexpr CacheMode all_caches[] = {CacheMode::none, CacheMode::prefix, CacheMode::dual};

Rows range(std::int64_t start, std::int64_t end) {
  Rows rows(static_cast<std::size_t>(end - start));
  std::iota(rows.begin(), rows.end(), start);
  return rows;
}

// Confidence falls from left to right, so a pass commits the left-most position first.
Answer left_to_right(std::int64_t, std::int64_t position) {
  return {.token_id = position % 10, .confidence = 0.8F - 0.01F * static_cast<float>(position)};
}

TEST(UnmaskLoop, CommitsOneTokenPerPassMostConfidentFirst) {
  Scripted s(scripted_package(), left_to_right);
  const Ids prompt{1, 2};
  const auto result = s.engine.generate(prompt, {.max_new_tokens = 4, .block_length = 2});
  EXPECT_EQ(result.token_ids, (Ids{2, 3, 4, 5}));
  EXPECT_EQ(result.num_passes, 4);
  EXPECT_EQ(result.finish_reason, FinishReason::length);
  EXPECT_EQ(s.session->passes[0].wanted, (Rows{2, 3}));
  EXPECT_EQ(s.session->passes[1].wanted, (Rows{3}));
}

TEST(UnmaskLoop, NearCertaintyThePositionsAreStillRanked) {
  Scripted s(scripted_package(), [](std::int64_t, std::int64_t position) {
    return Answer{.confidence = 1.0 - 1e-9 * static_cast<double>(8 - position)};
  });
  Ids order;
  static_cast<void>(s.engine.generate({}, {.max_new_tokens = 4}, [&](const CommitEvent& event) {
    order.push_back(event.positions[0]);
    return true;
  }));
  EXPECT_EQ(order, (Ids{3, 2, 1, 0}));
}

TEST(UnmaskLoop, ABlockFinishedByItsRefreshCostsNoFurtherPass) {
  Scripted s(scripted_package(), [](auto, auto) { return Answer{.confidence = 0.95F}; });
  const auto result =
      s.engine.generate({}, {.max_new_tokens = 8, .block_length = 4, .threshold = 0.9});
  EXPECT_EQ(result.num_passes, 2);
  EXPECT_EQ(result.stats.refresh_passes, 2);
  EXPECT_EQ(result.stats.step_passes, 0);
}

TEST(UnmaskLoop, DualStepsSeeTheRowsAroundTheBlockAsTheRefreshLeftThem) {
  Scripted s(scripted_package(), left_to_right);
  const Ids prompt{1, 2, 3};
  const auto result =
      s.engine.generate(prompt, {.max_new_tokens = 6, .block_length = 2, .cache = CacheMode::dual});
  ASSERT_EQ(result.num_passes, 6);
  const auto& step = s.session->passes[3];  // second pass of the middle block [5, 7)
  EXPECT_EQ(step.positions, range(5, 7));
  EXPECT_EQ(step.past_length, 7);
  EXPECT_EQ(step.attended, 9);
  EXPECT_EQ(step.present_length, 0);
  EXPECT_EQ(s.session->seen_past, range(0, 7));  // the last block's past: all before it
  EXPECT_EQ(result.stats.rows_computed, 3 * 9 + 3 * 2);
  EXPECT_EQ(result.stats.logit_rows_computed, 3 * (2 + 1));
}

TEST(UnmaskLoop, DualStepSeesPrefixAndSuffix) {
  auto session = std::make_unique<ScriptedSession>();
  ScriptedSession* view = session.get();
  std::vector<Rows> seen;
  view->script = [&seen, view](std::int64_t pass, std::int64_t position) {
    if (view->seen_past.size() > 0) seen.push_back(view->seen_past);
    return left_to_right(pass, position);
  };
  Engine engine(scripted_package(), std::move(session));
  static_cast<void>(engine.generate(Ids{1, 2}, {.max_new_tokens = 6, .block_length = 2}));
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_EQ(seen[0], (Rows{0, 1, 4, 5, 6, 7}));
  EXPECT_EQ(seen[1], (Rows{0, 1, 2, 3, 6, 7}));
  EXPECT_EQ(seen[2], (Rows{0, 1, 2, 3, 4, 5}));
}

TEST(UnmaskLoop, PrefixStepsFeedTheBlockAndEverythingAfterIt) {
  Scripted s(scripted_package(), left_to_right);
  const auto result = s.engine.generate(
      Ids{1, 2, 3}, {.max_new_tokens = 4, .block_length = 2, .cache = CacheMode::prefix});
  ASSERT_EQ(result.num_passes, 4);
  EXPECT_EQ(s.session->passes[1].positions, range(3, 7));
  EXPECT_EQ(s.session->passes[1].past_length, 3);
  EXPECT_EQ(s.session->passes[3].positions, range(5, 7));
  EXPECT_EQ(s.session->seen_past, range(0, 5));
}

TEST(UnmaskLoop, WithoutCacheEveryPassFeedsTheWholeCanvas) {
  Scripted s(scripted_package(), left_to_right);
  const auto result =
      s.engine.generate(Ids{1}, {.max_new_tokens = 4, .block_length = 2, .cache = CacheMode::none});
  EXPECT_EQ(result.stats.rows_computed, 4 * 5);
  EXPECT_EQ(result.stats.cache_bytes, 0);
  for (const auto& pass : s.session->passes) EXPECT_EQ(pass.positions, range(0, 5));
}

// LLaDA's sampler (arXiv 2502.09992) divides the masks of a block over its passes, the first ones
// one more; not its length, which would finish what is partly given in fewer passes than asked for.
TEST(UnmaskLoop, PassesShareTheMasksOfABlockThatIsPartlyGiven) {
  Scripted s;
  Ids canvas(27, 1);  // blocks [3, 11), [11, 19), [19, 27) with 5, 8 and 3 masks; 4 passes for each
  for (const auto& [start, end] : {std::pair{3, 8}, std::pair{11, 19}, std::pair{22, 25}}) {
    std::fill(canvas.begin() + start, canvas.begin() + end, mask_id);
  }
  for (const CacheMode cache : all_caches) {
    std::vector<std::size_t> counts;
    const auto note = [&](const CommitEvent& event) {
      counts.push_back(event.positions.size());
      return true;
    };
    static_cast<void>(
        s.engine.infill(canvas, {.block_length = 8, .steps = 12, .cache = cache}, note));
    EXPECT_EQ(counts, (std::vector<std::size_t>{2, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1}));
  }
}

TEST(UnmaskLoop, FeedsCommittedTokensBack) {
  Scripted s(scripted_package(), left_to_right);
  static_cast<void>(s.engine.generate(Ids{7}, {.max_new_tokens = 2, .cache = CacheMode::none}));
  EXPECT_EQ(s.session->passes[1].ids, (Rows{7, 1, mask_id}));
}

TEST(UnmaskLoop, AnyLengthsFillEveryPositionWithoutTheMask) {
  for (const CacheMode cache : all_caches) {
    for (const std::int64_t prompt_length : {0, 1, 31, 33}) {
      for (const std::int64_t new_tokens : {1, 7, 31, 32, 33}) {
        for (const std::int64_t block_length : {1, 5, 32, 100}) {
          for (const std::optional<std::int64_t> steps :
               {std::optional<std::int64_t>{}, {1}, {9}}) {
            Scripted s(scripted_package(), left_to_right);
            const auto result = s.engine.generate(Ids(static_cast<std::size_t>(prompt_length), 1),
                                                  {.max_new_tokens = new_tokens,
                                                   .block_length = block_length,
                                                   .steps = steps,
                                                   .cache = cache});
            ASSERT_EQ(std::ssize(result.token_ids), new_tokens);
            ASSERT_EQ(std::count(result.token_ids.begin(), result.token_ids.end(), mask_id), 0);
            const std::int64_t blocks = (new_tokens + block_length - 1) / block_length;
            ASSERT_LE(result.num_passes, steps ? std::max(*steps, blocks) : new_tokens);
          }
        }
      }
    }
  }
}

Answer end_at_five(std::int64_t, std::int64_t position) {
  return {.token_id = position >= 5 ? eos_id : 1, .confidence = position >= 5 ? 0.9F : 0.5F};
}

TEST(UnmaskLoop, StopsOnceEverythingBeforeTheEndOfTextIsFilled) {
  Scripted s(scripted_package(), end_at_five);
  const GenerationConfig config{.max_new_tokens = 32, .block_length = 8};
  const auto result = s.engine.generate({}, config);
  EXPECT_EQ(result.token_ids, (Ids{1, 1, 1, 1, 1, eos_id}));
  EXPECT_EQ(result.finish_reason, FinishReason::stop);
  EXPECT_EQ(result.num_passes, 8);

  GenerationConfig whole = config;
  whole.ignore_eos = true;
  const auto everything = s.engine.generate({}, whole);
  EXPECT_EQ(everything.token_ids.size(), 32U);
  EXPECT_EQ(everything.finish_reason, FinishReason::length);
  EXPECT_TRUE(
      std::equal(result.token_ids.begin(), result.token_ids.end(), everything.token_ids.begin()));
}

TEST(UnmaskLoop, EventsReconstructTheResult) {
  Scripted s(scripted_package(), left_to_right);
  Ids rebuilt(7, mask_id);
  std::int64_t step = 0;
  std::vector<bool> finished;
  std::int64_t refreshes = 0, rows = 0;
  const auto result =
      s.engine.generate(Ids{1, 2}, {.max_new_tokens = 7, .block_length = 3, .steps = 5},
                        [&](const CommitEvent& event) {
                          EXPECT_EQ(event.step, step++);
                          refreshes += event.refreshed;
                          rows += event.rows;
                          EXPECT_FALSE(event.positions.empty());
                          for (std::size_t i = 0; i < event.positions.size(); ++i) {
                            auto& slot = rebuilt.at(static_cast<std::size_t>(event.positions[i]));
                            EXPECT_EQ(slot, mask_id);
                            EXPECT_GE(event.positions[i], event.block_start);
                            EXPECT_LT(event.positions[i], event.block_end);
                            slot = event.token_ids[i];
                          }
                          finished.push_back(event.block_finished);
                          return true;
                        });
  EXPECT_EQ(rebuilt, result.token_ids);
  EXPECT_EQ(step, result.num_passes);
  EXPECT_EQ(std::count(finished.begin(), finished.end(), true), 3);
  EXPECT_EQ(refreshes, result.stats.refresh_passes);
  EXPECT_EQ(rows, result.stats.rows_computed);
}

TEST(UnmaskLoop, AbortKeepsTheFilledBeginning) {
  Scripted s(scripted_package(), left_to_right);
  const auto result = s.engine.generate({}, {.max_new_tokens = 8},
                                        [](const CommitEvent& event) { return event.step < 2; });
  EXPECT_EQ(result.finish_reason, FinishReason::abort);
  EXPECT_EQ(result.token_ids, (Ids{0, 1, 2}));
}

TEST(UnmaskLoop, NaNIsNamedAndTheEngineStaysUsable) {
  Scripted s(scripted_package(), [](std::int64_t pass, std::int64_t position) {
    const bool bad = pass == 1 && position == 4;
    return Answer{.confidence = bad ? std::numeric_limits<float>::quiet_NaN() : 0.5F};
  });
  try {
    static_cast<void>(s.engine.generate(Ids{1, 2}, {.max_new_tokens = 8}));
    FAIL() << "NaN was decoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::numeric);
    EXPECT_NE(std::string(error.what()).find("pass 1: the confidence at position 4"),
              std::string::npos)
        << error.what();
  }
  EXPECT_EQ(s.engine.generate(Ids{1, 2}, {.max_new_tokens = 3}).token_ids.size(), 3U);
}

TEST(UnmaskLoop, AModelThatProposesTheMaskIsAnError) {
  Scripted s(scripted_package(), [](auto, auto) { return Answer{.token_id = mask_id}; });
  EXPECT_THROW(static_cast<void>(s.engine.generate({}, {.max_new_tokens = 2})), Error);
}

TEST(UnmaskLoop, RandomRemaskingDependsOnTheSeedOnly) {
  const auto order = [](std::uint64_t seed) {
    Scripted s(scripted_package(), left_to_right);
    Ids positions;
    static_cast<void>(
        s.engine.generate({}, {.max_new_tokens = 16, .remasking = Remasking::random, .seed = seed},
                          [&](const CommitEvent& event) {
                            positions.push_back(event.positions[0]);
                            return true;
                          }));
    return positions;
  };
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
}

float favourite_is_position(std::int64_t row, std::int64_t position, std::int64_t v) {
  return v == (position + row) % 10 ? 2.0F : 0.0F;
}

TEST(UnmaskLoop, GuidanceFeedsASecondRowWithTheMaskedPromptAndMovesAwayFromIt) {
  Scripted s(scripted_package(), {});
  s.session->logit_script = favourite_is_position;
  const auto result = s.engine.generate(Ids{8, 8}, {.max_new_tokens = 2, .cfg_scale = 1.0});
  EXPECT_EQ(result.token_ids, (Ids{2, 3}));
  EXPECT_EQ(s.session->passes[0].batch, 2);
  EXPECT_EQ(s.session->passes[0].ids,
            (Rows{8, 8, mask_id, mask_id, mask_id, mask_id, mask_id, mask_id}));
  EXPECT_EQ(result.stats.rows_computed, 2 * (4 + 2));  // no suffix: the step feeds the block
  EXPECT_EQ(result.stats.logit_rows_computed, 2 * (2 + 1));
}

TEST(UnmaskLoop, SamplingGivesTheSameTokensForTheSameSeed) {
  const auto sample = [](std::uint64_t seed) {
    Scripted s(scripted_package(), {});
    s.session->logit_script = [](auto, auto, auto) { return 0.0F; };
    return s.engine.generate({}, {.max_new_tokens = 32, .temperature = 1.0, .seed = seed})
        .token_ids;
  };
  EXPECT_EQ(sample(3), sample(3));
  EXPECT_NE(sample(3), sample(4));
  const Ids ids = sample(3);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), mask_id), 0);
}

TEST(UnmaskLoop, NothingOfAFormerRequestIsAttendedTo) {
  for (const CacheMode cache : {CacheMode::prefix, CacheMode::dual}) {
    Scripted s(scripted_package(), left_to_right);
    static_cast<void>(s.engine.generate(Ids(8, 1), {.max_new_tokens = 8, .cache = cache}));
    s.session->passes.clear();
    static_cast<void>(s.engine.generate({}, {.max_new_tokens = 4, .cache = cache}));
    for (const RecordedPass& pass : s.session->passes) EXPECT_EQ(pass.past_length, 0);
  }
}

TEST(UnmaskLoop, TheLastEventOfABlockSaysThatItIsFinished) {
  Scripted s(scripted_package(), end_at_five);
  std::vector<bool> finished;
  static_cast<void>(s.engine.generate({}, {.max_new_tokens = 32, .block_length = 8},
                                      [&](const CommitEvent& event) {
                                        finished.push_back(event.block_finished);
                                        return true;
                                      }));
  EXPECT_EQ(std::count(finished.begin(), finished.end(), true), 1);
  EXPECT_TRUE(finished.back());
}

}  // namespace
}  // namespace fastdllm::testing
