// Options that change logits, and what a result says of its tokens, against a scripted backend.
#include "rules/sampler.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "fastdllm/engine.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

using Ids = std::vector<std::int32_t>;

struct Decoded {
  GenerationResult result;
  bool logits_bound;
};

// Logits 4, 3, 2, ... of tokens 0, 1, 2, ...; the mask token's is the least.
Decoded decode(const GenerationConfig& config) {
  auto session = std::make_unique<ScriptedSession>();
  const ScriptedSession* view = session.get();
  session->logit_script = [](auto, auto, std::int64_t v) { return 4.0F - static_cast<float>(v); };
  Engine engine(scripted_package(), std::move(session));
  GenerationResult result = engine.generate(Ids{1}, config);
  return {std::move(result), view->passes.at(0).logits_bound};
}

// Of the scripted logits, without the tokens below `first`, the most probable one's share.
double share_of_best(std::int64_t first) {
  double total = 0.0;
  for (std::int64_t v = 0; v < vocab_size - first; ++v) total += std::exp(-static_cast<double>(v));
  return 1.0 / total;
}

TEST(Sampler, ABannedTokenIsNeitherProposedNorPartOfTheConfidence) {
  const Decoded none = decode({.max_new_tokens = 1, .logit_bias = {{9, 0.0}}});
  const Decoded two = decode({.max_new_tokens = 1, .banned_token_ids = {0, 1}});
  EXPECT_EQ(none.result.token_ids, (Ids{0}));
  EXPECT_NEAR(none.result.logprobs.at(0), std::log(share_of_best(0)), 1e-6);
  EXPECT_EQ(two.result.token_ids, (Ids{2}));
  EXPECT_NEAR(two.result.logprobs.at(0), std::log(share_of_best(2)), 1e-6);
}

TEST(Sampler, ABannedTokenIsNotSampledAtAnyTemperature) {
  Ids banned(13);
  std::iota(banned.begin(), banned.end(), 0);
  for (const double min_p : {0.0, 0.5}) {
    const Decoded hot = decode({.max_new_tokens = 64,
                                .temperature = 50.0,
                                .min_p = min_p,
                                .banned_token_ids = banned,
                                .ignore_eos = true});
    for (const std::int32_t id : hot.result.token_ids) EXPECT_TRUE(id == 13 || id == 14) << id;
  }
}

TEST(Sampler, ABiasMovesTheChoiceAndTheConfidence) {
  const Decoded biased = decode({.max_new_tokens = 1, .logit_bias = {{7, 7.0}, {0, -1e6}}});
  EXPECT_EQ(biased.result.token_ids, (Ids{7}));
  const double total = std::exp(1.0) + 1.0 / share_of_best(1) - std::exp(-6.0);
  EXPECT_NEAR(biased.result.logprobs.at(0), std::log(std::exp(1.0) / total), 1e-6);
}

TEST(Sampler, ABiasComesAfterGuidance) {
  const auto decoded = decode({.max_new_tokens = 1, .logit_bias = {{3, 3.5}}, .cfg_scale = 2.0});
  EXPECT_EQ(decoded.result.token_ids, (Ids{3}));
}

TEST(Sampler, LogitsAreAskedForOnlyWhereTheGraphsCandidatesDoNotDo) {
  const auto binds_logits = [](const GenerationConfig& config) {
    GenerationConfig one = config;
    one.max_new_tokens = 1;
    return decode(one).logits_bound;
  };
  EXPECT_FALSE(binds_logits({}));
  EXPECT_FALSE(binds_logits({.frechet = 0.2}));
  EXPECT_FALSE(binds_logits({.entropy_bound = 0.2}));
  EXPECT_FALSE(binds_logits({.remasking = Remasking::margin, .min_p = 0.5}));
  EXPECT_TRUE(binds_logits({.logit_bias = {{1, 0.5}}}));
  EXPECT_TRUE(binds_logits({.banned_token_ids = {1}}));
  EXPECT_TRUE(binds_logits({.temperature = 0.5}));
}

TEST(Sampler, EntropyBoundReadsTheGraphsEntropies) {
  const auto passes = [](double bound) {
    auto session = std::make_unique<ScriptedSession>();
    session->script = [](auto, auto) { return Answer{.confidence = 0.6, .entropy = 0.5}; };
    Engine engine(scripted_package(), std::move(session));
    return engine.generate({}, {.max_new_tokens = 6, .entropy_bound = bound}).num_passes;
  };
  EXPECT_EQ(passes(0.4), 6);
  EXPECT_EQ(passes(0.5), 3);  // the larger of two is free
  EXPECT_EQ(passes(2.5), 1);
}

TEST(Sampler, ATokensLogprobIsThatOfItsLatestCommit) {
  auto session = std::make_unique<ScriptedSession>();
  session->script = [](std::int64_t pass, auto) {
    return Answer{.token_id = pass < 2 ? 3 : 4, .confidence = pass < 2 ? 0.25 : 0.75};
  };
  Engine engine(scripted_package(), std::move(session));
  const GenerationResult result =
      engine.generate({}, {.max_new_tokens = 2, .editing_threshold = 0.5});
  EXPECT_EQ(result.token_ids, (Ids{4, 4}));
  ASSERT_EQ(result.logprobs.size(), 2U);
  for (const double logprob : result.logprobs) EXPECT_NEAR(logprob, std::log(0.75), 1e-6);
}

}  // namespace
}  // namespace fastdllm::testing
