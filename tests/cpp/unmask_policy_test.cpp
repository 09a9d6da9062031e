#include "rules/unmask_policy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

namespace fastdllm {
namespace {

using Confidences = std::vector<double>;
using Accepted = std::vector<int>;

Accepted accept(const GenerationConfig& config, const Confidences& confidences,
                std::int64_t quota = 1, bool inclusive = true, double rate = 1.0) {
  UnmaskPolicy policy(config, inclusive);
  Accepted accepted(confidences.size(), 0);
  for (const std::size_t i : policy.choose({confidences}, quota, rate, 1.0)) accepted[i] = 1;
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

Accepted by_frechet(double delta, const Confidences& confidences) {
  return accept({.frechet = delta}, confidences);
}

TEST(FrechetRule, AcceptsWhileTheProfileExceedsItsMargin) {
  // Equal ones: 1 - (n + 1) * .1 is .3 for the sixth and .2 for the seventh.
  EXPECT_EQ(by_frechet(.25, Confidences(8, .9)), (Accepted{1, 1, 1, 1, 1, 1, 0, 0}));
  EXPECT_EQ(by_frechet(.25, {.9, .9, .9}), (Accepted{1, 1, 1}));
  EXPECT_EQ(by_frechet(.25, {.99, .8, .74, .2, .2}), (Accepted{1, 1, 1, 0, 0}));
  EXPECT_EQ(by_frechet(.25, {.2, .97, .9, .85, .5}), (Accepted{0, 1, 1, 1, 0}));
  EXPECT_EQ(by_frechet(.60, {.2, .97, .9, .85, .5}), (Accepted{0, 1, 1, 0, 0}));
  EXPECT_EQ(by_frechet(.25, {.3, .5, .5}), (Accepted{0, 1, 0}));
}

TEST(EntropyRule, EntropiesButTheLargestSumUpToTheBound) {
  const std::vector<double> entropies{.05, .02, .5, .04};
  const auto by_entropy = [&](double bound, Remasking remasking, const Confidences& scores) {
    const GenerationConfig config{.entropy_bound = bound, .remasking = remasking};
    UnmaskPolicy policy(config, true);
    Accepted accepted(scores.size(), 0);
    for (const std::size_t i : policy.choose({scores, entropies}, 1, 1.0, 1.0)) accepted[i] = 1;
    return accepted;
  };
  const auto confident = [&](double bound) {
    return by_entropy(bound, Remasking::low_confidence, {.9, .95, .3, .8});
  };
  EXPECT_EQ(confident(0.0), (Accepted{0, 1, 0, 0}));
  EXPECT_EQ(confident(.03), (Accepted{1, 1, 0, 0}));
  EXPECT_EQ(confident(.10), (Accepted{1, 1, 0, 1}));  // .06 of three, .11 of four
  EXPECT_EQ(confident(.12), (Accepted{1, 1, 1, 1}));
  EXPECT_EQ(by_entropy(.03, Remasking::entropy, {-.05, -.02, -.5, -.04}), (Accepted{0, 1, 0, 1}));
}

TEST(ThresholdRule, SinksWithTheMasks) {
  const auto accept_at = [](double decay, double masked_fraction) {
    const GenerationConfig config{.threshold = .9, .threshold_decay = decay};
    UnmaskPolicy policy(config, true);
    const Confidences confidences{.8, .7, .3};
    return policy.choose({confidences}, 1, 1.0, masked_fraction).size();
  };
  EXPECT_EQ(accept_at(.5, 1.0), 1U);
  EXPECT_EQ(accept_at(.5, .5), 2U);    // .9 * .75 = .675
  EXPECT_EQ(accept_at(1.0, .25), 3U);  // .9 * .25 = .225
  EXPECT_EQ(accept_at(0.0, .25), 1U);
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

std::vector<std::int64_t> quotas(const StepSchedule& schedule, std::int64_t masks) {
  std::vector<std::int64_t> given;
  for (std::int64_t left = masks, i = 0; left > 0; left -= given.back(), ++i) {
    given.push_back(std::min(schedule.quota(0, i, masks, left), left));
  }
  return given;
}

std::vector<std::int64_t> quotas(std::int64_t steps, std::int64_t masks) {
  const StepSchedule schedule({.steps = steps}, 1, false);
  return quotas(schedule, masks);
}

TEST(StepSchedule, SplitsABlocksMasksOverItsSteps) {
  EXPECT_EQ(quotas(8, 32), std::vector<std::int64_t>(8, 4));
  EXPECT_EQ(quotas(5, 32), (std::vector<std::int64_t>{7, 7, 6, 6, 6}));
  EXPECT_EQ(quotas(40, 32), std::vector<std::int64_t>(32, 1));
}

TEST(StepSchedule, GivesEveryBlockAtLeastOneStepAndTheFirstOnesOneMore) {
  const StepSchedule schedule({.steps = 7}, 3, false);
  EXPECT_EQ(schedule.steps_of(0, 8), 3);
  EXPECT_EQ(schedule.steps_of(1, 8), 2);
  EXPECT_EQ(schedule.steps_of(2, 8), 2);
  EXPECT_EQ(StepSchedule({.steps = 2}, 3, false).steps_of(2, 8), 1);
}

TEST(StepSchedule, WithoutStepsCommitsOneTokenPerPass) {
  const StepSchedule schedule({}, 3, false);
  EXPECT_EQ(schedule.steps_of(1, 8), 8);
  EXPECT_EQ(schedule.quota(1, 5, 8, 3), 1);
}

std::vector<std::int64_t> of(std::initializer_list<std::pair<int, std::int64_t>> runs) {
  std::vector<std::int64_t> values;
  for (const auto& [count, value] : runs) values.insert(values.end(), count, value);
  return values;
}

TEST(StepSchedule, TimeStepsGiveTheReferencesCounts) {
  const auto counts = [](std::int64_t steps, std::int64_t masks) {
    return quotas(StepSchedule({.steps = steps, .eps = 1e-3}, 1, false), masks);
  };
  EXPECT_EQ(counts(256, 256), of({{1, 0}, {254, 1}, {1, 2}}));
  EXPECT_EQ(counts(8, 32), of({{1, 3}, {6, 4}, {1, 5}}));
  EXPECT_EQ(counts(128, 256), of({{1, 1}, {126, 2}, {1, 3}}));
}

TEST(StepSchedule, TimeStepsInABlockBeginBehindItsFirstToken) {
  const auto counts = [](std::int64_t steps) {
    return quotas(StepSchedule({.steps = steps, .eps = 1e-3}, 1, true), 32);
  };
  EXPECT_EQ(counts(32), of({{1, 1}, {1, 0}, {29, 1}, {1, 2}}));
  EXPECT_EQ(counts(16), of({{1, 1}, {14, 2}, {1, 3}}));
  EXPECT_EQ(counts(8), of({{1, 1}, {5, 4}, {1, 5}, {1, 6}}));
  EXPECT_EQ(counts(2), of({{1, 1}, {1, 31}}));
  EXPECT_EQ(counts(1), of({{1, 1}, {1, 31}}));
}

TEST(StepSchedule, AFirstTokenCountsAmongTheSteps) {
  EXPECT_EQ(quotas(StepSchedule({.steps = 4}, 1, true), 8),
            (std::vector<std::int64_t>{1, 3, 2, 2}));
}

TEST(StepSchedule, StepsPerBlockAreEveryBlocks) {
  EXPECT_EQ(quotas(StepSchedule({.steps_per_block = 3}, 5, false), 8),
            (std::vector<std::int64_t>{3, 3, 2}));
}

TEST(ThresholdRule, MayBeStrict) {
  EXPECT_EQ(accept({.threshold = .9}, {.95, .9, .89}, 1, false), (Accepted{1, 0, 0}));
}

TEST(ThresholdRule, WithStepsPerBlockTakesAtLeastTheQuota) {
  EXPECT_EQ(accept({.steps_per_block = 1, .threshold = .9}, {.1, .95, .3, .2}, 2),
            (Accepted{0, 1, 1, 0}));
  EXPECT_EQ(accept({.steps_per_block = 1, .threshold = .9}, {.1, .95, .93, .92}, 2),
            (Accepted{0, 1, 1, 1}));
}

TEST(OriginRule, RevealsEachPositionAtTheRate) {
  const GenerationConfig config{.remasking = Remasking::origin};
  EXPECT_EQ(accept(config, {.1, .5, .3}, 1, true, .3), (Accepted{1, 0, 0}));
  EXPECT_EQ(accept(config, {.5, .6}, 1, true, .3), (Accepted{0, 0}));
  EXPECT_EQ(accept(config, {.5, .6}, 1, true, 1.0), (Accepted{1, 1}));
}

}  // namespace
}  // namespace fastdllm
