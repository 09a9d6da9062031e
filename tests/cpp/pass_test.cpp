#include "cache/pass.hpp"

#include <gtest/gtest.h>

namespace fastdllm {
namespace {

using Rows = std::vector<std::int64_t>;

// Canvas of 8: prompt 0-1, blocks 2-4 and 5-7.
constexpr BlockRange first_block{2, 5};

Canvas canvas() {
  return Canvas(std::vector<std::int32_t>{1, 2}, 6, {3, 3}, 15);
}

TEST(PassPlanner, DualRefreshFeedsPrefixSuffixBlockAndKeepsAllButTheBlock) {
  PassPlanner planner(CacheMode::dual, {}, canvas());
  const Pass& refresh = planner.plan(first_block, first_block, Rows{2, 3, 4}, true, false);
  EXPECT_EQ(refresh.rows, (Rows{0, 1, 5, 6, 7, 2, 3, 4}));
  EXPECT_EQ(refresh.present_length, 5);
  EXPECT_EQ(refresh.logit_rows, (Rows{5, 6, 7}));
  EXPECT_EQ(refresh.past, Past::none);
}

TEST(PassPlanner, DualStepFeedsTheBlockAndAsksForMaskedRowsOnly) {
  PassPlanner planner(CacheMode::dual, {}, canvas());
  static_cast<void>(planner.plan(first_block, first_block, Rows{2, 3, 4}, true, false));
  const Pass& step = planner.plan(first_block, first_block, Rows{2, 4}, false, false);
  EXPECT_EQ(step.rows, (Rows{2, 3, 4}));
  EXPECT_EQ(step.logit_rows, (Rows{0, 2}));
  EXPECT_EQ(step.present_length, 0);
  EXPECT_EQ(step.past, Past::refreshed);
}

TEST(PassPlanner, PrefixStepFeedsTheBlockAndWhatFollows) {
  PassPlanner planner(CacheMode::prefix, {}, canvas());
  const Pass& refresh = planner.plan(first_block, first_block, Rows{2, 3, 4}, true, false);
  EXPECT_EQ(refresh.rows, (Rows{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(refresh.present_length, 2);
  const Pass& step = planner.plan(first_block, first_block, Rows{4}, false, false);
  EXPECT_EQ(step.rows, (Rows{2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(step.logit_rows, (Rows{2}));
}

TEST(PassPlanner, WithoutCacheEveryPassFeedsTheCanvas) {
  PassPlanner planner(CacheMode::none, {}, canvas());
  for (const bool first : {true, false}) {
    const Pass& pass = planner.plan(first_block, first_block, Rows{3}, first, false);
    EXPECT_EQ(pass.rows.size(), 8U);
    EXPECT_EQ(pass.present_length, 0);
    EXPECT_EQ(pass.past, Past::none);
    EXPECT_EQ(pass.logit_rows, (Rows{3}));
  }
}

TEST(PassPlanner, ABlocksOnlyPassCachesNothing) {
  for (const CacheMode mode : {CacheMode::prefix, CacheMode::dual}) {
    PassPlanner planner(mode, {}, canvas());
    EXPECT_EQ(planner.plan(first_block, first_block, Rows{2, 3, 4}, true, true).present_length, 0);
  }
}

// Prompt 0-9, blocks of 4 with sub-blocks of 2; the first window is 8-11.
struct BlockCausal {
  explicit BlockCausal(CacheMode mode, std::int64_t prompt_length = 10, bool sub_blocks = false)
      : canvas(std::vector<std::int32_t>(static_cast<std::size_t>(prompt_length), 1), 6,
               {4, sub_blocks ? 2 : 4, true}, 15),
        planner(mode, package(), canvas) {}
  static PackageInfo package() {
    PackageInfo info;
    info.attention = AttentionKind::block_causal;
    return info;
  }
  Canvas canvas;
  PassPlanner planner;
};

TEST(PassPlanner, FinishedRowsGoAlongWithABlocksFirstPassAndAreCommitted) {
  BlockCausal b(CacheMode::prefix);
  const BlockRange block = b.canvas.block(0);
  EXPECT_EQ(b.planner.plan_commit(block, false), nullptr);
  const Pass first = b.planner.plan(block, block, Rows{10, 11}, true, false);
  EXPECT_EQ(first.rows.size(), 12U);
  EXPECT_EQ(first.present_length, 8);
  EXPECT_TRUE(first.commit);
  EXPECT_EQ(first.causal_block_length, 4);
  EXPECT_EQ(first.logit_rows, (Rows{10, 11}));
  const Pass& step = b.planner.plan(block, block, Rows{11}, false, false);
  EXPECT_EQ(step.rows, (Rows{8, 9, 10, 11}));
  EXPECT_EQ(step.past, Past::committed);
  EXPECT_EQ(step.present_length, 0);
  EXPECT_EQ(step.causal_block_length, 0);
}

TEST(PassPlanner, ALongPromptIsCommittedInPieces) {
  BlockCausal b(CacheMode::prefix, 1030);
  const BlockRange block = b.canvas.block(0);
  Rows ends;
  while (const Pass* pass = b.planner.plan_commit(block, false)) {
    EXPECT_EQ(pass->past, Past::committed);
    EXPECT_EQ(std::ssize(pass->rows) % 4, 0);
    ends.push_back(pass->present_length);
  }
  EXPECT_EQ(ends, (Rows{512, 1024}));
}

TEST(PassPlanner, AttentionOfAPieceDoesNotGrowWithTheContext) {
  BlockCausal b(CacheMode::prefix, 40000);
  std::int64_t before = 0;
  while (const Pass* pass = b.planner.plan_commit(b.canvas.block(0), false)) {
    EXPECT_LE(std::ssize(pass->rows) * pass->present_length, std::int64_t{1} << 22);
    EXPECT_EQ(pass->rows.front(), before);
    before = pass->present_length;
  }
  EXPECT_GT(before, 40000 - 200);  // the rest goes along with the block's first pass
}

TEST(PassPlanner, ASubBlocksRefreshKeepsTheOtherRowsOfItsWindow) {
  BlockCausal b(CacheMode::dual, 10, true);
  const BlockRange block = b.canvas.block(0);
  const Pass* commit = b.planner.plan_commit(block, false);
  ASSERT_NE(commit, nullptr);
  EXPECT_EQ(commit->present_length, 8);
  EXPECT_EQ(b.planner.plan_commit(block, false), nullptr);
  const BlockRange range = b.canvas.sub_block(block, 1);
  const Pass refresh = b.planner.plan(block, range, Rows{10, 11}, true, false);
  EXPECT_EQ(refresh.rows, (Rows{8, 9, 10, 11}));
  EXPECT_EQ(refresh.present_length, 10);
  EXPECT_FALSE(refresh.commit);
  const Pass& step = b.planner.plan(block, range, Rows{11}, false, false);
  EXPECT_EQ(step.rows, (Rows{10, 11}));
  EXPECT_EQ(step.past, Past::refreshed);
}

}  // namespace
}  // namespace fastdllm
