#include "cache/canvas.hpp"

#include <gtest/gtest.h>

namespace fastdllm {
namespace {

constexpr std::int32_t mask = 9;

TEST(Canvas, LastBlockIsShortWhereLengthsDoNotDivide) {
  const Canvas canvas(std::vector<std::int32_t>{1, 2, 3}, 10, {4, 4}, mask);
  ASSERT_EQ(canvas.num_blocks(), 3);
  EXPECT_EQ(canvas.block(0).start, 3);
  EXPECT_EQ(canvas.block(2).start, 11);
  EXPECT_EQ(canvas.block(2).end, 13);
}

TEST(Canvas, BlockLongerThanTheGenerationIsOneBlock) {
  const Canvas canvas({}, 5, {32, 32}, mask);
  EXPECT_EQ(canvas.num_blocks(), 1);
  EXPECT_EQ(canvas.block(0).length(), 5);
}

TEST(Canvas, HugeBlockLengthDoesNotOverflow) {
  const Canvas canvas({}, 5, {INT64_MAX, INT64_MAX}, mask);
  EXPECT_EQ(canvas.num_blocks(), 1);
}

TEST(Canvas, AbsoluteBlocksBeginInThePromptAndEndBehindTheNewTokens) {
  Canvas canvas(std::vector<std::int32_t>{1, 2, 3, 4, 5, 6}, 3, {4, 2, true}, mask);
  ASSERT_EQ(canvas.num_blocks(), 2);
  EXPECT_EQ(canvas.length(), 12);
  EXPECT_EQ(canvas.block(0).start, 4);
  EXPECT_EQ(canvas.block(1).end, 12);
  EXPECT_EQ(canvas.sub_blocks_per_block(), 2);
  EXPECT_EQ(canvas.sub_block(canvas.block(1), 1).start, 10);
  EXPECT_EQ(canvas.answer().size(), 3U);
  const auto generated = canvas.generated(canvas.block(0));
  EXPECT_EQ(std::vector(generated.begin(), generated.end()), (std::vector<std::int64_t>{6, 7}));
}

TEST(Canvas, CommittedPositionsAreNoLongerMasked) {
  Canvas canvas(std::vector<std::int32_t>{1}, 3, {3, 3}, mask);
  canvas.commit(2, 5);
  const auto masked = canvas.masked(canvas.block(0));
  EXPECT_EQ(std::vector(masked.begin(), masked.end()), (std::vector<std::int64_t>{1, 3}));
}

TEST(Canvas, StopsOnlyWhenEveryEarlierPositionIsFilled) {
  Canvas canvas({}, 3, {3, 3}, mask);
  const std::vector<std::int32_t> stop{7};
  canvas.commit(1, 7);
  EXPECT_EQ(canvas.stopped_length(stop), 0);
  canvas.commit(0, 4);
  EXPECT_EQ(canvas.stopped_length(stop), 2);
  EXPECT_EQ(canvas.filled_length(), 2);
}

}  // namespace
}  // namespace fastdllm
