// Which rows passes feed when the suffix, the refreshes or the blocks are not the usual ones, and
// canvases with gaps.
#include <gtest/gtest.h>

#include <vector>

#include "fastdllm/engine.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

using Ids = std::vector<std::int32_t>;
using Rows = std::vector<std::int64_t>;

TEST(SuffixWindow, PassesFeedTheNextMasksAndTheLastOne) {
  const auto passes_of = [](CacheMode cache) {
    Scripted s;
    static_cast<void>(s.engine.generate(
        Ids{1, 1}, {.max_new_tokens = 12, .block_length = 4, .cache = cache, .suffix_window = 2}));
    return s.session->passes;
  };
  const auto dual = passes_of(CacheMode::dual);
  EXPECT_EQ(dual[0].positions, (Rows{0, 1, 6, 7, 13, 2, 3, 4, 5}));
  EXPECT_EQ(dual[1].positions, (Rows{2, 3, 4, 5}));
  EXPECT_EQ(dual[1].past_length, 5);
  const auto prefix = passes_of(CacheMode::prefix);
  EXPECT_EQ(prefix[0].positions, (Rows{0, 1, 2, 3, 4, 5, 6, 7, 13}));
  EXPECT_EQ(prefix[1].positions, (Rows{2, 3, 4, 5, 6, 7, 13}));
  EXPECT_EQ(prefix[1].past_length, 2);
  const auto none = passes_of(CacheMode::none);
  EXPECT_EQ(none[1].positions, (Rows{0, 1, 2, 3, 4, 5, 6, 7, 13}));
  EXPECT_EQ(none[9].positions.size(), 14U);  // behind the last block there is nothing to leave out
}

TEST(SuffixWindow, AnAnswersCostDoesNotGrowWithWhatWasAskedFor) {
  const auto rows_of = [](std::int64_t max_new_tokens) {
    Scripted s;
    s.session->script = [](std::int64_t, std::int64_t position) {
      return Answer{.token_id = position == 9 ? eos_id : 3, .confidence = 0.95};
    };
    const auto result = s.engine.generate(Ids{1, 1}, {.max_new_tokens = max_new_tokens,
                                                      .block_length = 4,
                                                      .threshold = 0.9,
                                                      .cache = CacheMode::dual,
                                                      .suffix_window = 8});
    EXPECT_EQ(result.token_ids.size(), 8U);
    return result.stats.rows_computed;
  };
  EXPECT_EQ(rows_of(40), rows_of(400));
}

TEST(RefreshInterval, EveryNthPassOfABlockIsARefresh) {
  Scripted s;
  static_cast<void>(s.engine.generate(
      Ids{1, 1},
      {.max_new_tokens = 12, .block_length = 6, .cache = CacheMode::dual, .refresh_interval = 2}));
  std::vector<std::int64_t> kept;
  for (const RecordedPass& pass : s.session->passes) kept.push_back(pass.present_length);
  // The sixth pass of a block has no step behind it but would have been a step.
  EXPECT_EQ(kept, (Rows{8, 0, 8, 0, 8, 0, 8, 0, 8, 0, 8, 0}));
}

TEST(RefreshInterval, OrAfterSoManyTokens) {
  Scripted s;
  static_cast<void>(s.engine.generate(Ids{1, 1}, {.max_new_tokens = 12,
                                                  .block_length = 6,
                                                  .steps_per_block = 3,
                                                  .cache = CacheMode::dual,
                                                  .refresh_tokens = 4}));
  std::vector<std::int64_t> kept;
  for (const RecordedPass& pass : s.session->passes) kept.push_back(pass.present_length);
  EXPECT_EQ(kept, (Rows{8, 0, 0, 8, 0, 0}));  // the third finishes the block: no rows to keep
}

TEST(DeferredWindow, FollowsTheLeftMostMask) {
  Scripted s;
  // Right rows are surer: with blocks of 4 the first block would have to take what it has.
  s.session->script = [](std::int64_t, std::int64_t position) {
    return Answer{.token_id = position % 10, .confidence = position % 3 == 0 ? 0.95 : 0.4};
  };
  std::vector<Rows> commits;
  const auto result =
      s.engine.generate(Ids{1, 1},
                        {.max_new_tokens = 12,
                         .block_length = 4,
                         .threshold = 0.9,
                         .cache = CacheMode::dual,
                         .deferred_window = 8,
                         .refresh_tokens = 3},
                        [&](const CommitEvent& event) {
                          commits.emplace_back(event.positions.begin(), event.positions.end());
                          return true;
                        });
  EXPECT_EQ(result.token_ids, (Ids{2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3}));
  // Positions 2 to 5 hold four masks: 3 is sure. Then 2, 4, 5, 6: 6 is sure. Then 2, 4, 5, 7: none.
  EXPECT_EQ(commits[0], (Rows{1}));
  EXPECT_EQ(commits[1], (Rows{4}));
  EXPECT_EQ(commits[2], (Rows{0}));
  // Three are committed: a refresh from position 4 on, around a region of eight.
  const auto& passes = s.session->passes;
  EXPECT_EQ(passes[0].positions, (Rows{0, 1, 10, 11, 12, 13, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(passes[0].present_length, 6);
  EXPECT_EQ(passes[1].positions, (Rows{2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(passes[3].positions, (Rows{0, 1, 2, 3, 12, 13, 4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(passes[3].present_length, 6);
}

TEST(DeferredWindow, DoesNotReachBehindACommittedEndOfText) {
  Scripted s;
  s.session->script = [](std::int64_t, std::int64_t position) {
    if (position == 4) return Answer{.token_id = eos_id, .confidence = 0.99};
    return Answer{.token_id = 3, .confidence = position > 4 ? 0.97 : 0.3};
  };
  std::vector<std::int32_t> told;
  const auto result = s.engine.generate(
      {}, {.max_new_tokens = 12, .block_length = 5, .threshold = 0.98, .deferred_window = 12},
      [&](const CommitEvent& event) {
        told.insert(told.end(), event.positions.begin(), event.positions.end());
        return true;
      });
  EXPECT_EQ(result.token_ids, (Ids{3, 3, 3, 3, eos_id}));
  EXPECT_EQ(told, (Ids{4, 0, 1, 2, 3}));
}

TEST(DeferredWindow, IsRefusedWhereItMeansNothing) {
  Scripted s;
  const auto refuses = [&](const GenerationConfig& config) {
    EXPECT_THROW(static_cast<void>(s.engine.generate({}, config)), Error);
  };
  refuses({.deferred_window = 8});
  refuses({.threshold = 0.9, .deferred_window = 8, .editing_threshold = 0.5});
  refuses({.threshold = 0.9, .deferred_window = 8, .stop_at = StopAt::block});
  Scripted causal(block_causal_package());
  EXPECT_THROW(
      static_cast<void>(causal.engine.generate({}, {.threshold = 0.9, .deferred_window = 8})),
      Error);
  EXPECT_THROW(static_cast<void>(causal.engine.generate({}, {.suffix_window = 8})), Error);
}

TEST(ThresholdDecay, GoesByTheMasksOfWhatAStepFeeds) {
  // Masks of four: 0.9 at first, then 0.9 * (1 - 0.8 * 1 / 4) = 0.72, ...
  Scripted s;
  s.session->script = [](std::int64_t pass, std::int64_t) {
    return Answer{.token_id = 3, .confidence = pass == 0 ? 0.89 : 0.73};
  };
  const auto result = s.engine.generate(
      {}, {.max_new_tokens = 4, .block_length = 4, .threshold = 0.9, .threshold_decay = 0.8});
  EXPECT_EQ(result.num_passes, 2);
}

TEST(Infill, FillsGapsAndLeavesGivenTokensAlone) {
  const Ids canvas{1, mask_id, 2, mask_id, mask_id, 3, 4, 5, 6, mask_id, eos_id};
  const Ids filled{1, 1, 2, 3, 4, 3, 4, 5, 6, 9, eos_id};
  for (const CacheMode cache :
       {CacheMode::none, CacheMode::prefix, CacheMode::dual, CacheMode::automatic}) {
    for (const bool block_causal : {false, true}) {
      Scripted s(block_causal ? block_causal_package() : scripted_package());
      std::vector<std::int32_t> told;
      const auto result = s.engine.infill(
          canvas, {.block_length = 4, .cache = cache}, [&](const CommitEvent& event) {
            told.insert(told.end(), event.positions.begin(), event.positions.end());
            return true;
          });
      EXPECT_EQ(result.token_ids, filled);
      EXPECT_EQ(told, (Ids{1, 3, 4, 9}));
      EXPECT_EQ(result.finish_reason, FinishReason::length);
      EXPECT_EQ(result.num_passes, 4);
      EXPECT_EQ(result.logprobs[0], 0.0);  // given
      EXPECT_LT(result.logprobs[1], 0.0);
    }
  }
}

TEST(Infill, ABlockWithoutGapsCostsNoPass) {
  Scripted s;
  Ids canvas(20, 1);
  canvas[2] = canvas[17] = mask_id;
  EXPECT_EQ(s.engine.infill(canvas, {.block_length = 4}).num_passes, 2);
  EXPECT_EQ(s.session->passes[1].wanted, (Rows{17}));
}

TEST(Infill, GivenBlocksOfABlockCausalModelAreCommittedTogether) {
  Scripted s(block_causal_package());
  Ids canvas(20, 1);
  canvas[1] = canvas[17] = mask_id;
  const auto result = s.engine.infill(canvas, {.sub_block_length = 2, .cache = CacheMode::dual});
  EXPECT_EQ(result.num_passes, 3);
  EXPECT_EQ(s.session->passes[1].present_length, 16);
}

TEST(Infill, WhatFillsUpTheLastBlockIsNotDecodedForItself) {
  Scripted s(block_causal_package());
  static_cast<void>(
      s.engine.infill(Ids{1, mask_id, 2, 3, 4}, {.threshold = 0.5, .editing_threshold = 0.9}));
  for (const RecordedPass& pass : s.session->passes) {
    EXPECT_EQ(pass.positions, (Rows{0, 1, 2, 3}));
  }
}

TEST(Infill, AShiftedBlocksFirstTokenComesAloneOnlyWhereItIsMasked) {
  PackageInfo package = scripted_package();
  package.logits_shift = 1;
  Scripted s(package);
  const auto result =
      s.engine.infill(Ids{1, mask_id, mask_id, 2, mask_id, mask_id},
                      {.block_length = 2, .threshold = 0.1, .cache = CacheMode::dual});
  EXPECT_EQ(result.num_passes, 2 + 1 + 1);
}

TEST(DeferredWindow, PositionZeroNeedsNoRefreshOfItsOwn) {
  PackageInfo package = scripted_package();
  package.logits_shift = 1;
  Scripted s(package);
  s.session->script = [](std::int64_t, std::int64_t position) {
    return Answer{.token_id = 3, .confidence = position > 0 ? 0.9 : 0.2};
  };
  const auto result = s.engine.generate({}, {.max_new_tokens = 8,
                                             .block_length = 4,
                                             .threshold = 1.0,
                                             .cache = CacheMode::dual,
                                             .deferred_window = 8});
  EXPECT_EQ(result.stats.refresh_passes, 1);
}

TEST(Infill, GuidanceMasksGivenTokensBehindTheGapsToo) {
  Scripted s;
  s.session->logit_script = [](std::int64_t, std::int64_t, std::int64_t v) {
    return v == 3 ? 2.0F : 0.0F;
  };
  static_cast<void>(
      s.engine.infill(Ids{1, mask_id, 2}, {.cache = CacheMode::none, .cfg_scale = 1.0}));
  EXPECT_EQ(s.session->passes[0].ids, (Rows{1, mask_id, 2, mask_id, mask_id, mask_id}));
}

TEST(Infill, RefusesACanvasWithoutGapsOrTooLong) {
  Scripted s;
  const auto message_of = [&](const Ids& canvas) -> std::string {
    try {
      static_cast<void>(s.engine.infill(canvas));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message_of({1, 2}),
            "none of the 2 canvas ids is the mask token 15; expected at least one gap to fill");
  EXPECT_EQ(message_of({}),
            "none of the 0 canvas ids is the mask token 15; expected at least one gap to fill");
  EXPECT_EQ(message_of(Ids(513, mask_id)),
            "the canvas has 513 tokens, longer than the model's context of 512");
  EXPECT_EQ(message_of({mask_id, 16}), "prompt id 16 at index 1 is outside the vocabulary [0, 16)");
}

TEST(AutomaticCache, IsNoneWhereARefreshLeavesHardlyMoreThanTheBlock) {
  const auto steps_of = [](std::size_t prompt_length, std::int64_t max_new_tokens) {
    Scripted s;
    const auto result = s.engine.generate(Ids(prompt_length, 1),
                                          {.max_new_tokens = max_new_tokens, .block_length = 16});
    return result.stats.step_passes;
  };
  EXPECT_EQ(steps_of(2, 16), 0);
  EXPECT_GT(steps_of(40, 16), 0);
  EXPECT_GT(steps_of(2, 64), 0);
}

}  // namespace
}  // namespace fastdllm::testing
