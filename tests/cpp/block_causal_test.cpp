// Decoding with exact K/V of finished blocks, logit shift, seed tokens, sub-blocks and editing,
// against a scripted backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "fastdllm/engine.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

using Ids = std::vector<std::int32_t>;
using Rows = std::vector<std::int64_t>;

Rows range(std::int64_t start, std::int64_t end) {
  Rows rows(static_cast<std::size_t>(end - start));
  std::iota(rows.begin(), rows.end(), start);
  return rows;
}

TEST(BlockCausal, APromptGoesAlongWithTheFirstPassAndSeesByBlock) {
  Scripted s(block_causal_package());
  const auto result = s.engine.generate(Ids{1, 1, 1, 1, 1}, {.max_new_tokens = 3});
  EXPECT_EQ(result.token_ids, (Ids{5, 6, 7}));
  EXPECT_EQ(result.num_passes, 3);
  const RecordedPass& first = s.session->passes[0];
  EXPECT_EQ(first.positions, range(0, 8));
  EXPECT_EQ(first.present_length, 4);
  ASSERT_EQ(first.mask_rows, 8);
  for (std::size_t i = 0; i < 8; ++i) {
    for (std::size_t j = 0; j < 8; ++j) EXPECT_EQ(first.mask[i * 8 + j], i / 4 >= j / 4) << i << j;
  }
  EXPECT_EQ(s.session->passes[1].positions, range(4, 8));
  EXPECT_EQ(s.session->passes[1].past_length, 4);
  EXPECT_EQ(s.session->passes[1].mask_rows, 1);
  EXPECT_EQ(s.session->seen_past, range(0, 4));
}

TEST(BlockCausal, AFinishedBlockIsCommittedByTheNextOnesFirstPass) {
  Scripted s(block_causal_package());
  const auto result =
      s.engine.generate(Ids{1, 1, 1, 1}, {.max_new_tokens = 8, .steps_per_block = 1});
  EXPECT_EQ(result.num_passes, 2);
  EXPECT_EQ(s.session->passes[1].positions, range(4, 12));
  EXPECT_EQ(s.session->passes[1].past_length, 4);
  EXPECT_EQ(s.session->passes[1].present_length, 8);
  EXPECT_EQ(s.session->seen_past, range(0, 4));
}

TEST(BlockCausal, WithoutCacheEveryPassRecomputesWhatTheBlockSees) {
  Scripted s(block_causal_package());
  static_cast<void>(
      s.engine.generate(Ids{1, 1, 1, 1, 1}, {.max_new_tokens = 3, .cache = CacheMode::none}));
  for (const RecordedPass& pass : s.session->passes) {
    EXPECT_EQ(pass.positions, range(0, 8));
    EXPECT_EQ(pass.past_length, 0);
    EXPECT_EQ(pass.present_length, 0);
  }
}

TEST(BlockCausal, EndsWhenTheTokensAskedForAreThere) {
  Scripted s(block_causal_package());
  const auto result = s.engine.generate(Ids{1}, {.max_new_tokens = 1});
  EXPECT_EQ(result.token_ids, (Ids{1}));
  EXPECT_EQ(result.num_passes, 1);
  EXPECT_EQ(result.finish_reason, FinishReason::length);
}

TEST(BlockCausal, TheNextTurnComputesOnlyWhatIsNew) {
  Scripted s(block_causal_package());
  const Ids first(6, 1);
  const auto answer = s.engine.generate(first, {.max_new_tokens = 8, .steps_per_block = 1});
  Ids second = first;
  second.insert(second.end(), answer.token_ids.begin(), answer.token_ids.end());
  second.insert(second.end(), 4, 2);
  s.session->passes.clear();
  const auto next = s.engine.generate(second, {.max_new_tokens = 2, .steps_per_block = 1});
  EXPECT_EQ(next.stats.reused_rows, 12);  // 14 known ids, of which three whole blocks
  EXPECT_EQ(s.session->passes[0].positions, range(12, 20));
  EXPECT_EQ(s.session->passes[0].past_length, 12);
}

TEST(BlockCausal, AnotherPromptOrBlockLengthReusesNothing) {
  Scripted s(block_causal_package());
  static_cast<void>(s.engine.generate(Ids(9, 1), {.max_new_tokens = 4}));
  Ids other(9, 1);
  other[2] = 3;
  EXPECT_EQ(s.engine.generate(other, {.max_new_tokens = 4}).stats.reused_rows, 0);
  EXPECT_EQ(s.engine.generate(other, {.max_new_tokens = 4, .block_length = 2}).stats.reused_rows,
            0);
}

TEST(BlockCausal, ALongSharedBeginningIsKeptAndTheRestDropped) {
  Scripted s(block_causal_package());
  static_cast<void>(s.engine.generate(Ids(200, 1), {.max_new_tokens = 4}));
  Ids other(200, 1);
  other[150] = 3;
  s.session->passes.clear();
  const auto result = s.engine.generate(other, {.max_new_tokens = 4, .steps_per_block = 1});
  EXPECT_EQ(result.stats.reused_rows, 148);
  EXPECT_EQ(s.session->passes[0].positions.size(), 1U);
  EXPECT_EQ(s.session->passes[0].present_length, 148);
  EXPECT_EQ(s.session->passes[1].positions, range(148, 204));
  EXPECT_EQ(s.session->seen_past, range(0, 148));
}

TEST(BlockCausal, AFailedPassLeavesWhatWasCommitted) {
  Scripted s(block_causal_package());
  static_cast<void>(s.engine.generate(Ids(9, 1), {.max_new_tokens = 8}));
  s.session->script = [](auto, auto) { return Answer{.token_id = mask_id}; };
  EXPECT_THROW(static_cast<void>(s.engine.generate(Ids(9, 1), {.max_new_tokens = 8})), Error);
  s.session->script = own_position;
  EXPECT_EQ(s.engine.generate(Ids(9, 1), {.max_new_tokens = 8}).token_ids,
            (Ids{9, 0, 1, 2, 3, 4, 5, 6}));
}

TEST(SeedToken, ComesFromTheLastCommittedRowAndThePassThatCommitsIt) {
  Scripted s(block_causal_package(true), own_position);
  const auto result = s.engine.generate(Ids{1, 1, 1, 1}, {.max_new_tokens = 3});
  EXPECT_EQ(result.token_ids, (Ids{3, 4, 5}));  // each predicted by the row before it
  EXPECT_EQ(s.session->passes[0].positions, range(0, 4));
  EXPECT_EQ(s.session->passes[0].wanted, (Rows{3}));
  EXPECT_EQ(s.session->passes[0].present_length, 4);
  EXPECT_EQ(s.session->passes[1].positions, range(4, 8));
  EXPECT_EQ(s.session->passes[1].wanted, (Rows{4, 5, 6}));
}

TEST(SeedToken, AnAnswerMayEndWithIt) {
  Scripted s(block_causal_package(true), own_position);
  const auto result = s.engine.generate(Ids{1}, {.max_new_tokens = 4, .steps_per_block = 1});
  EXPECT_EQ(result.token_ids, (Ids{0, 1, 2, 3}));
  EXPECT_EQ(result.num_passes, 2);  // the window, and the commit that gives the fourth
}

TEST(SeedToken, APromptOfWholeBlocksIsNotReusedToItsEnd) {
  Scripted s(block_causal_package(true), own_position);
  const Ids prompt(8, 1);
  const auto fresh = s.engine.generate(prompt, {.max_new_tokens = 3});
  const auto again = s.engine.generate(prompt, {.max_new_tokens = 3});
  EXPECT_EQ(again.stats.reused_rows, 0);  // 4 whole rows are not worth a pass of their own
  EXPECT_EQ(again.token_ids, fresh.token_ids);
}

TEST(SubBlocks, AreDecodedFromLeftToRightWithTheirWindowCached) {
  Scripted s(block_causal_package(true), own_position);
  const auto result =
      s.engine.generate(Ids{1, 1, 1, 1}, {.max_new_tokens = 4, .sub_block_length = 2});
  EXPECT_EQ(result.token_ids, (Ids{3, 4, 5, 6}));
  const auto& passes = s.session->passes;
  ASSERT_EQ(passes.size(), 4U);
  EXPECT_EQ(passes[1].positions, (Rows{6, 7, 4, 5}));  // the rows to keep first
  EXPECT_EQ(passes[1].present_length, 6);
  EXPECT_EQ(passes[2].positions, range(4, 8));  // position 6 is predicted by row 5
  EXPECT_EQ(passes[2].wanted, (Rows{5, 6}));
  EXPECT_EQ(passes[3].positions, (Rows{6, 7}));
  EXPECT_EQ(s.session->seen_past, range(0, 6));
}

TEST(LogitShift, ABidirectionalBlocksRefreshGivesItsFirstTokenAlone) {
  PackageInfo package = scripted_package();
  package.logits_shift = 1;
  Scripted s(package, own_position);
  const auto result =
      s.engine.generate(Ids{1, 1}, {.max_new_tokens = 4, .block_length = 4, .threshold = 0.1});
  EXPECT_EQ(result.token_ids, (Ids{1, 2, 3, 4}));
  ASSERT_EQ(result.num_passes, 2);
  EXPECT_EQ(s.session->passes[0].wanted, (Rows{1}));
  EXPECT_EQ(s.session->passes[1].wanted, (Rows{2, 3, 4}));
}

TEST(LogitShift, WithoutCacheEveryPassPredictsTheWholeBlock) {
  PackageInfo package = scripted_package();
  package.logits_shift = 1;
  Scripted s(package, own_position);
  const auto result =
      s.engine.generate({}, {.max_new_tokens = 3, .threshold = 0.1, .cache = CacheMode::none});
  EXPECT_EQ(result.token_ids, (Ids{0, 0, 1}));  // nothing stands before the first position
  EXPECT_EQ(result.num_passes, 1);
}

TEST(Editing, OverwritesUntilNothingChangesAndNeverThePrompt) {
  Scripted s(block_causal_package(), [](std::int64_t pass, std::int64_t position) {
    return Answer{.token_id = pass < 2 ? pass : 2, .confidence = position == 1 ? 0.95 : 0.5};
  });
  std::vector<bool> finished;
  const auto result = s.engine.generate(
      Ids{1},
      {.max_new_tokens = 3, .steps_per_block = 1, .threshold = 0.9, .editing_threshold = 0.6},
      [&](const CommitEvent& event) {
        finished.push_back(event.block_finished);
        return true;
      });
  EXPECT_EQ(result.token_ids, (Ids{2, 0, 0}));  // the others are not sure enough to be edited
  EXPECT_EQ(result.num_passes, 4);
  EXPECT_EQ(s.session->passes[1].wanted, (Rows{1, 2, 3}));
  EXPECT_EQ(finished, (std::vector<bool>{false, false, false, true}));
}

TEST(SeedToken, FinishesABlockThatItFills) {
  Scripted s(block_causal_package(true), own_position);
  std::vector<bool> finished;
  static_cast<void>(s.engine.generate(Ids{1}, {.max_new_tokens = 3, .block_length = 1},
                                      [&](const CommitEvent& event) {
                                        finished.push_back(event.block_finished);
                                        return true;
                                      }));
  EXPECT_EQ(finished, (std::vector<bool>{true, true, true}));
}

TEST(Editing, IsBoundedWhereEditsOscillate) {
  Scripted s(block_causal_package(), [](std::int64_t pass, auto) {
    return Answer{.token_id = pass % 2, .confidence = 0.9};
  });
  const auto result = s.engine.generate(
      Ids{1},
      {.max_new_tokens = 3, .steps_per_block = 1, .editing_threshold = 0.0, .max_post_steps = 5});
  EXPECT_EQ(result.num_passes, 1 + 5);
}

TEST(StopAt, BlockEndsTheAnswerWithTheBlock) {
  Scripted s(block_causal_package(),
             [](auto, std::int64_t position) { return Answer{.token_id = position == 2 ? 9 : 1}; });
  const GenerationConfig config{.max_new_tokens = 11, .stop_token_ids = Ids{9}};
  GenerationConfig by_block = config;
  by_block.stop_at = StopAt::block;
  EXPECT_EQ(s.engine.generate(Ids{1}, config).token_ids, (Ids{1, 9}));
  const auto whole = s.engine.generate(Ids{1}, by_block);
  EXPECT_EQ(whole.token_ids, (Ids{1, 9, 1}));
  EXPECT_EQ(whole.finish_reason, FinishReason::stop);
}

TEST(Ranks, MarginEntropyAndSequentialOrderThePositions) {
  const auto order = [](Remasking remasking) {
    Scripted s(scripted_package(), [](auto, std::int64_t position) {
      return Answer{.confidence = 0.5 + 0.1 * static_cast<double>(position),
                    .second_confidence = position == 1 ? 0.0 : 0.4,
                    .entropy = position == 0 ? 0.1 : 1.0};
    });
    Ids positions;
    static_cast<void>(s.engine.generate({}, {.max_new_tokens = 3, .remasking = remasking},
                                        [&](const CommitEvent& event) {
                                          positions.push_back(event.positions[0]);
                                          return true;
                                        }));
    return positions;
  };
  EXPECT_EQ(order(Remasking::low_confidence), (Ids{2, 1, 0}));
  EXPECT_EQ(order(Remasking::margin), (Ids{1, 2, 0}));
  EXPECT_EQ(order(Remasking::entropy), (Ids{0, 1, 2}));
  EXPECT_EQ(order(Remasking::sequential), (Ids{0, 1, 2}));
}

TEST(TimeSteps, APassThatWouldCommitNothingIsLeftOut) {
  Scripted s(scripted_package(), own_position);
  const auto result = s.engine.generate({}, {.max_new_tokens = 8, .steps = 8, .eps = 1e-3});
  EXPECT_EQ(result.token_ids.size(), 8U);
  EXPECT_EQ(result.num_passes, 7);
}

}  // namespace
}  // namespace fastdllm::testing
