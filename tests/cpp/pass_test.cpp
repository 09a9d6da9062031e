#include "pass.hpp"

#include <gtest/gtest.h>

namespace fastdllm {
namespace {

using Rows = std::vector<std::int64_t>;

// Canvas of 8: prompt 0-1, blocks 2-4 and 5-7.
constexpr BlockRange first_block{2, 5};

TEST(PassPlanner, DualRefreshFeedsPrefixSuffixBlockAndKeepsAllButTheBlock) {
  PassPlanner planner(CacheMode::dual, 8);
  const Pass& refresh = planner.plan(first_block, Rows{2, 3, 4}, true, false);
  EXPECT_EQ(refresh.rows, (Rows{0, 1, 5, 6, 7, 2, 3, 4}));
  EXPECT_EQ(refresh.present_length, 5);
  EXPECT_EQ(refresh.logit_rows, (Rows{5, 6, 7}));
  EXPECT_FALSE(refresh.reuse_cache);
}

TEST(PassPlanner, DualStepFeedsTheBlockAndAsksForMaskedRowsOnly) {
  PassPlanner planner(CacheMode::dual, 8);
  static_cast<void>(planner.plan(first_block, Rows{2, 3, 4}, true, false));
  const Pass& step = planner.plan(first_block, Rows{2, 4}, false, false);
  EXPECT_EQ(step.rows, (Rows{2, 3, 4}));
  EXPECT_EQ(step.logit_rows, (Rows{0, 2}));
  EXPECT_EQ(step.present_length, 0);
  EXPECT_TRUE(step.reuse_cache);
}

TEST(PassPlanner, PrefixStepFeedsTheBlockAndWhatFollows) {
  PassPlanner planner(CacheMode::prefix, 8);
  const Pass& refresh = planner.plan(first_block, Rows{2, 3, 4}, true, false);
  EXPECT_EQ(refresh.rows, (Rows{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(refresh.present_length, 2);
  const Pass& step = planner.plan(first_block, Rows{4}, false, false);
  EXPECT_EQ(step.rows, (Rows{2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(step.logit_rows, (Rows{2}));
}

TEST(PassPlanner, WithoutCacheEveryPassFeedsTheCanvas) {
  PassPlanner planner(CacheMode::none, 8);
  for (const bool first : {true, false}) {
    const Pass& pass = planner.plan(first_block, Rows{3}, first, false);
    EXPECT_EQ(pass.rows.size(), 8U);
    EXPECT_EQ(pass.present_length, 0);
    EXPECT_FALSE(pass.reuse_cache);
    EXPECT_EQ(pass.logit_rows, (Rows{3}));
  }
}

TEST(PassPlanner, ABlocksOnlyPassCachesNothing) {
  for (const CacheMode mode : {CacheMode::prefix, CacheMode::dual}) {
    PassPlanner planner(mode, 8);
    EXPECT_EQ(planner.plan(first_block, Rows{2, 3, 4}, true, true).present_length, 0);
  }
}

}  // namespace
}  // namespace fastdllm
