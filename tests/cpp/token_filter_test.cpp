#include "rules/token_filter.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "plain_filter.hpp"

namespace fastdllm::testing {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// Bit by bit: -0 stays -0.
bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

void expect_as_sorted(std::span<const float> logits, TokenFilter& filter,
                      const TokenFilter::Options& options) {
  const std::vector<float> expected = sorted_filter(logits, options);
  EXPECT_TRUE(same_bits(filter.keep(logits), expected))
      << "V " << logits.size() << ", mask " << options.mask_token_id << ", temperature "
      << options.temperature << ", top_p " << options.top_p << ", top_k " << options.top_k
      << ", min_p " << options.min_p;
}

// Every combination of the options' interesting values on one row.
void expect_as_sorted(std::span<const float> logits) {
  const std::int64_t v = std::ssize(logits);
  for (const std::int64_t mask : {std::int64_t{0}, v / 2, v - 1}) {
    for (const double temperature : {0.0, 0.3, 5.0}) {
      for (const double top_p : {1e-300, 0.1, 0.9, 0.9999, 1.0}) {
        for (const std::int64_t top_k : {std::int64_t{0}, std::int64_t{1}, std::int64_t{64},
                                         std::max<std::int64_t>(v - 1, 1), v, 2 * v}) {
          for (const double min_p : {0.0, 0.2}) {
            const TokenFilter::Options options{.mask_token_id = static_cast<std::int32_t>(mask),
                                               .temperature = temperature,
                                               .top_p = top_p,
                                               .top_k = top_k,
                                               .min_p = min_p};
            TokenFilter filter(options);
            expect_as_sorted(logits, filter, options);
          }
        }
      }
    }
  }
}

TEST(TokenFilter, KeepsWhatASortOfTheWholeVocabularyWould) {
  std::mt19937 random(11);
  for (const std::size_t v : {1, 2, 3, 63, 64, 65, 66, 257, 1500}) {
    for (const float spread : {0.1F, 2.0F, 30.0F}) {
      std::normal_distribution<float> normal(0.0F, spread);
      std::vector<float> logits(v);
      for (float& logit : logits) logit = normal(random);
      expect_as_sorted(logits);
    }
  }
}

TEST(TokenFilter, OfEqualLogitsTheLowerIdIsBetter) {
  std::mt19937 random(12);
  for (const std::size_t v : {2, 65, 300}) {
    std::vector<float> logits(v, 1.5F);
    expect_as_sorted(logits);
    // Few values, zeros of both signs among them: they are equal, too.
    const std::array<float, 5> values{-1.0F, -0.0F, 0.0F, 0.5F, 1.0F};
    for (float& logit : logits) logit = values[random() % values.size()];
    expect_as_sorted(logits);
  }
}

TEST(TokenFilter, TakesTheLargestAndTheSmallestNumbers) {
  constexpr float largest = std::numeric_limits<float>::max();
  constexpr float tiny = std::numeric_limits<float>::denorm_min();
  std::vector<float> logits{largest, -largest, minus_infinity, 0.0F, tiny, -tiny, 1.0F, -1.0F};
  expect_as_sorted(logits);
  logits.assign(70, minus_infinity);
  expect_as_sorted(logits);
  logits[9] = -largest;
  expect_as_sorted(logits);
}

TEST(TokenFilter, ARowOwesNothingToTheOneBefore) {
  const TokenFilter::Options options{.mask_token_id = 3, .top_p = 0.8, .top_k = 40};
  TokenFilter filter(options);
  std::mt19937 random(13);
  std::normal_distribution<float> normal;
  for (const std::size_t v : {500, 20, 500}) {
    std::vector<float> logits(v);
    for (float& logit : logits) logit = normal(random);
    expect_as_sorted(logits, filter, options);
  }
}

}  // namespace
}  // namespace fastdllm::testing
