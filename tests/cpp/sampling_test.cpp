#include "rules/sampling.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

namespace fastdllm {
namespace {

TEST(Philox, AgreesWithThePublishedKnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(PortableLog, IsWithinTwoUlpOfTheLogarithm) {
  for (double x = 1e-12; x < 1e3; x *= 1.37) {
    const double expected = std::log(x);
    EXPECT_NEAR(portable_log(x), expected, 4.5e-16 * std::max(1.0, std::abs(expected))) << x;
  }
}

Proposal propose(std::span<const float> logits, std::int32_t mask, double temperature,
                 const NoiseKey& key) {
  return TokenSampler({.mask_token_id = mask, .temperature = temperature}).propose(logits, key);
}

TEST(Propose, TakesTheLowestIndexOnTiesAndNeverTheMask) {
  const std::vector<float> logits{1, 5, 5, 9};
  EXPECT_EQ(propose(logits, 3, 0.0, {}).token_id, 1);
  EXPECT_EQ(propose(logits, 1, 0.0, {}).token_id, 3);
}

TEST(Propose, ConfidenceIsTheSoftmaxOverAllLogitsTheMasksToo) {
  const std::vector<float> logits{0, 0, 0, 0};
  EXPECT_DOUBLE_EQ(propose(logits, 3, 0.0, {}).confidence, 0.25);
}

TEST(Propose, NaNLogitsGiveNaNConfidence) {
  const std::vector<float> logits{0, std::numeric_limits<float>::quiet_NaN(), 1};
  EXPECT_TRUE(std::isnan(propose(logits, 0, 0.0, {}).confidence));
}

TEST(Propose, EqualKeysGiveEqualSamplesAndOthersVary) {
  const std::vector<float> logits(64, 0.0F);
  std::map<std::int32_t, int> seen;
  for (std::int64_t pass = 0; pass < 50; ++pass) {
    const NoiseKey key{7, 3, pass};
    const auto token = propose(logits, 0, 1.0, key).token_id;
    EXPECT_EQ(token, propose(logits, 0, 1.0, key).token_id);
    ++seen[token];
  }
  EXPECT_GT(seen.size(), 20U);
}

TEST(Propose, SamplesTheSoftmaxOfTheTemperedLogits) {
  const std::vector<float> logits{-100, 0, 1, 2};  // mask at 0
  std::array<int, 4> counts{};
  constexpr int draws = 20000;
  for (std::int64_t pass = 0; pass < draws; ++pass) {
    ++counts[static_cast<std::size_t>(propose(logits, 0, 2.0, {1, 0, pass}).token_id)];
  }
  const double total = 1.0 + std::exp(0.5) + std::exp(1.0);
  EXPECT_NEAR(counts[1] / double{draws}, 1.0 / total, 0.02);
  EXPECT_NEAR(counts[2] / double{draws}, std::exp(0.5) / total, 0.02);
  EXPECT_NEAR(counts[3] / double{draws}, std::exp(1.0) / total, 0.02);
}

// Probabilities .4, .3, .2, .1 for tokens 1 to 4; the mask, 0, has none.
const std::vector<float> four{-100.0F, std::log(.4F), std::log(.3F), std::log(.2F), std::log(.1F)};

double processed_confidence(TokenSampler::Options options) {
  options.processed = true;
  return TokenSampler(options).propose(four, {}).confidence;
}

TEST(Propose, ProcessedConfidenceIsThatOfTheKeptTokens) {
  EXPECT_NEAR(processed_confidence({}), .4, 1e-6);
  EXPECT_NEAR(processed_confidence({.top_k = 2}), .4 / .7, 1e-6);
  EXPECT_NEAR(processed_confidence({.top_p = .3}), 1.0, 1e-6);      // the first one crosses
  EXPECT_NEAR(processed_confidence({.top_p = .5}), .4 / .7, 1e-6);  // the second crosses
  EXPECT_NEAR(processed_confidence({.top_p = .95, .top_k = 3}), .4 / .9, 1e-6);
}

TEST(Propose, MinPKeepsWhatIsNearlyAsProbableAsTheBest) {
  EXPECT_NEAR(processed_confidence({.min_p = .4}), .4 / .9, 1e-6);
  EXPECT_NEAR(processed_confidence({.min_p = .7}), .4 / .7, 1e-6);
  EXPECT_NEAR(processed_confidence({.min_p = .8}), 1.0, 1e-6);
  EXPECT_NEAR(processed_confidence({.top_k = 2, .min_p = .4}), .4 / .7, 1e-6);
  // At temperature .5 the second one is .9 / 1.6 times as probable, not .3 / .4 times.
  EXPECT_NEAR(processed_confidence({.temperature = .5, .min_p = .6}), 1.0, 1e-6);
}

TEST(Propose, MinPComparesWithTheBestThatMayBeProposed) {
  TokenSampler sampler({.mask_token_id = 1, .temperature = 10.0, .min_p = .9});
  for (std::int64_t pass = 0; pass < 50; ++pass) {
    EXPECT_EQ(TokenSampler({.mask_token_id = 1, .min_p = .7}).propose(four, {1, 0, pass}).token_id,
              2);
    EXPECT_NE(sampler.propose(four, {1, 0, pass}).token_id, 0);
  }
}

TEST(Propose, MinusInfinityIsNeverProposed) {
  constexpr float out = -std::numeric_limits<float>::infinity();
  const std::vector<float> logits{9, out, 0, out};
  for (std::int64_t pass = 0; pass < 50; ++pass) {
    EXPECT_EQ(propose(logits, 0, 50.0, {1, 0, pass}).token_id, 2);
  }
  EXPECT_TRUE(std::isnan(propose(std::vector<float>{9, out}, 0, 0.0, {}).confidence));
}

TEST(Propose, RawConfidenceKnowsNoFilterNorTemperature) {
  EXPECT_NEAR(TokenSampler({.top_k = 1}).propose(four, {}).confidence, .4, 1e-6);
  const Proposal hot = TokenSampler({.temperature = 5.0, .top_k = 1}).propose(four, {});
  EXPECT_NEAR(hot.confidence, .4, 1e-6);
}

TEST(Propose, FilteredTokensAreNeverSampled) {
  TokenSampler sampler({.temperature = 10.0, .top_k = 2});
  for (std::int64_t pass = 0; pass < 200; ++pass) {
    EXPECT_LE(sampler.propose(four, {3, 0, pass}).token_id, 2);
  }
}

TEST(Propose, AMaskThatAloneIsKeptIsStillNotProposed) {
  TokenSampler sampler({.mask_token_id = 1, .top_k = 1});
  EXPECT_EQ(sampler.propose(four, {}).token_id, 2);
}

TEST(Propose, StatisticsAreMarginAndEntropy) {
  TokenSampler sampler({.statistics = true});
  const Proposal proposal = sampler.propose(four, {});
  EXPECT_NEAR(proposal.margin, .1, 1e-6);
  const double entropy =
      -(.4 * std::log(.4) + .3 * std::log(.3) + .2 * std::log(.2) + .1 * std::log(.1));
  EXPECT_NEAR(proposal.entropy, entropy, 1e-6);
}

}  // namespace
}  // namespace fastdllm
