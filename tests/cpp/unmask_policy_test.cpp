#include "unmask_policy.hpp"

#include <gtest/gtest.h>

namespace fastdllm {
namespace {

using Confidences = std::vector<double>;
using Accepted = std::vector<int>;

Accepted accept(const GenerationConfig& config, const Confidences& confidences,
                std::int64_t quota = 1) {
  UnmaskPolicy policy(config);
  Accepted accepted(confidences.size(), 0);
  for (const std::size_t i : policy.choose(confidences, quota)) accepted[i] = 1;
  return accepted;
}

Accepted by_factor(double factor, const Confidences& confidences) {
  return accept({.factor = factor}, confidences);
}

Accepted by_threshold(double threshold, const Confidences& confidences) {
  return accept({.threshold = threshold}, confidences);
}

TEST(FactorRule, AgreesWithTheReferencesVectors) {
  EXPECT_EQ(by_factor(1.0, {.9}), (Accepted{1}));
  EXPECT_EQ(by_factor(1.0, {.5, .5}), (Accepted{1, 1}));
  EXPECT_EQ(by_factor(1.0, {.9, .3}), (Accepted{1, 1}));
  EXPECT_EQ(by_factor(1.0, {.99, .98, .3}), (Accepted{1, 1, 1}));
  EXPECT_EQ(by_factor(1.0, {.99, .8, .74, .2, .2}), (Accepted{1, 1, 0, 0, 0}));
  EXPECT_EQ(by_factor(1.0, {.2, .97, .9, .85, .5}), (Accepted{0, 1, 1, 1, 0}));
  // The reference's vector has .8 here, which is the fourth limit itself: rounding decides there.
  EXPECT_EQ(by_factor(1.0, {.97, .9, .85, .7999, .79}), (Accepted{1, 1, 1, 0, 0}));
  EXPECT_EQ(by_factor(0.5, {.2, .97, .9, .85, .5}), (Accepted{0, 1, 1, 0, 0}));
}

TEST(ThresholdRule, IsInclusiveAndAlwaysTakesTheMostConfident) {
  EXPECT_EQ(by_threshold(.9, {.95, .9, .89, .3}), (Accepted{1, 1, 0, 0}));
  EXPECT_EQ(by_threshold(.9, {.3, .5, .2}), (Accepted{0, 1, 0}));
  EXPECT_EQ(by_threshold(.9, {.3, .5, .5}), (Accepted{0, 1, 0}));
}

TEST(FactorRule, WinsOverThreshold) {
  EXPECT_EQ(accept({.threshold = 0.01, .factor = 0.5}, {.2, .97, .9, .85, .5}),
            (Accepted{0, 1, 1, 0, 0}));
}

TEST(QuotaRule, TakesTheMostConfidentAndTiesGoToTheLowestIndex) {
  EXPECT_EQ(accept({}, {.5, .9, .9, .1}, 1), (Accepted{0, 1, 0, 0}));
  EXPECT_EQ(accept({}, {.5, .9, .9, .5}, 3), (Accepted{1, 1, 1, 0}));
  EXPECT_EQ(accept({}, {.5, .9}, 7), (Accepted{1, 1}));
}

std::vector<std::int64_t> quotas(std::int64_t steps, std::int64_t masks) {
  const StepSchedule schedule({.steps = steps}, 1);
  std::vector<std::int64_t> given;
  for (std::int64_t left = masks, i = 0; left > 0; left -= given.back(), ++i) {
    given.push_back(schedule.quota(0, i, masks));
  }
  return given;
}

TEST(StepSchedule, SplitsABlocksMasksOverItsSteps) {
  EXPECT_EQ(quotas(8, 32), std::vector<std::int64_t>(8, 4));
  EXPECT_EQ(quotas(5, 32), (std::vector<std::int64_t>{7, 7, 6, 6, 6}));
  EXPECT_EQ(quotas(40, 32), std::vector<std::int64_t>(32, 1));
}

TEST(StepSchedule, GivesEveryBlockAtLeastOneStepAndTheFirstOnesOneMore) {
  const StepSchedule schedule({.steps = 7}, 3);
  EXPECT_EQ(schedule.steps_of(0, 8), 3);
  EXPECT_EQ(schedule.steps_of(1, 8), 2);
  EXPECT_EQ(schedule.steps_of(2, 8), 2);
  EXPECT_EQ(StepSchedule({.steps = 2}, 3).steps_of(2, 8), 1);
}

TEST(StepSchedule, WithoutStepsCommitsOneTokenPerPass) {
  const StepSchedule schedule({}, 3);
  EXPECT_EQ(schedule.steps_of(1, 8), 8);
  EXPECT_EQ(schedule.quota(1, 5, 8), 1);
}

}  // namespace
}  // namespace fastdllm
