// What the engine refuses, before any pass.
#include "fastdllm/engine.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <thread>

#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

using Ids = std::vector<std::int32_t>;

std::string refusal_of(const Ids& prompt, const GenerationConfig& config,
                       const PackageInfo& package = scripted_package()) {
  auto session = std::make_unique<ScriptedSession>();
  const ScriptedSession* view = session.get();
  Engine engine(package, std::move(session));
  try {
    static_cast<void>(engine.generate(prompt, config));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_config);
    EXPECT_TRUE(view->passes.empty());
    return error.what();
  }
  return "accepted";
}

TEST(Engine, RefusesOptionsOutOfRangeByName) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::pair<GenerationConfig, std::string>> cases{
      {{.max_new_tokens = 0}, "max_new_tokens is 0; expected at least 1"},
      {{.block_length = -1}, "block_length is -1; expected at least 1"},
      {{.steps = 0}, "steps is 0; expected at least 1"},
      {{.threshold = 0.0}, "threshold is 0; expected a number in (0, 1]"},
      {{.threshold = 1.1}, "threshold is 1.1; expected a number in (0, 1]"},
      {{.threshold = nan}, "threshold is nan; expected a number in (0, 1]"},
      {{.factor = 0.0}, "factor is 0; expected a finite number > 0"},
      {{.temperature = -0.5}, "temperature is -0.5; expected a finite number >= 0"},
      {{.temperature = nan}, "temperature is nan; expected a finite number >= 0"},
      {{.sub_block_length = 0}, "sub_block_length is 0; expected at least 1"},
      {{.steps_per_block = 0}, "steps_per_block is 0; expected at least 1"},
      {{.steps = INT64_MAX}, "steps is 9223372036854775807; expected at most 1048576"},
      {{.steps_per_block = 1048577}, "steps_per_block is 1048577; expected at most 1048576"},
      {{.eps = 1.0}, "eps is 1; expected a number in (0, 1)"},
      {{.threshold_decay = 0.5}, "threshold_decay is 0.5; it needs a threshold"},
      {{.threshold = 0.5, .threshold_decay = 1.5},
       "threshold_decay is 1.5; expected a number in [0, 1]"},
      {{.frechet = 1.0}, "frechet is 1; expected a number in [0, 1)"},
      {{.entropy_bound = nan}, "entropy_bound is nan; expected a finite number >= 0"},
      {{.suffix_window = -1}, "suffix_window is -1; expected at least 0"},
      {{.refresh_interval = 0}, "refresh_interval is 0; expected at least 1"},
      {{.deferred_window = 0}, "deferred_window is 0; expected at least 1"},
      {{.refresh_tokens = 0}, "refresh_tokens is 0; expected at least 1"},
      {{.min_p = 1.0}, "min_p is 1; expected a number in [0, 1)"},
      {{.logit_bias = {{3, nan}}},
       "logit_bias of token 3 is nan; expected a number in [-1e+06, 1e+06]"},
      {{.logit_bias = {{3, 1.0}, {2, 1.0}, {3, 2.0}}},
       "logit_bias names token 3 twice; expected each id once"},
      {{.banned_token_ids = {-1}}, "banned_token_ids holds token -1; expected ids of at least 0"},
      {{.top_p = 0.0}, "top_p is 0; expected a number in (0, 1]"},
      {{.top_k = -1}, "top_k is -1; expected at least 0"},
      {{.alg_temp = nan}, "alg_temp is nan; expected a finite number >= 0"},
      {{.editing_threshold = 1.5}, "editing_threshold is 1.5; expected a number in [0, 1]"},
      {{.max_post_steps = -1}, "max_post_steps is -1; expected at least 0"},
      {{.max_post_steps = 1048577}, "max_post_steps is 1048577; expected at most 1048576"},
      {{.cfg_scale = -1.0}, "cfg_scale is -1; expected a number in [0, 1e+06]"}};
  for (const auto& [config, message] : cases) EXPECT_EQ(refusal_of({}, config), message);
}

TEST(Engine, RefusesIdsOutsideTheVocabularyAndTheMask) {
  EXPECT_EQ(refusal_of({1, -1}, {}), "prompt id -1 at index 1 is outside the vocabulary [0, 16)");
  EXPECT_EQ(refusal_of({16}, {}), "prompt id 16 at index 0 is outside the vocabulary [0, 16)");
  EXPECT_EQ(refusal_of({1, 2, mask_id}, {}),
            "prompt id 15 at index 2 is the mask token; a prompt holds given tokens only, infill "
            "fills gaps");
}

TEST(Engine, RefusesMoreThanTheModelsContext) {
  EXPECT_EQ(refusal_of(Ids(500, 1), {.max_new_tokens = 13}),
            "prompt (500 tokens) + max_new_tokens (13) is longer than the model's context of 512");
  EXPECT_EQ(refusal_of(Ids(500, 1), {.max_new_tokens = 12}), "accepted");
  EXPECT_NE(refusal_of({1}, {.max_new_tokens = INT64_MAX}), "accepted");
}

TEST(Engine, RefusesAnEmptyPromptWhereTheModelNeedsOne) {
  PackageInfo package = scripted_package();
  package.min_prompt_length = 1;
  EXPECT_EQ(refusal_of({}, {}, package), "the prompt has 0 tokens; this model needs at least 1");
}

TEST(Engine, RefusesOptionsThatTheModelCannotHonour) {
  EXPECT_EQ(refusal_of({}, {.sub_block_length = 2}),
            "sub_block_length is for block-causal models; this one is bidirectional");
  EXPECT_EQ(refusal_of({}, {.block_length = 513}, block_causal_package()),
            "block_length is 513; expected at most the model's context of 512");
  PackageInfo small = block_causal_package();
  small.block_length.reset();
  small.max_context_length = 31;
  EXPECT_EQ(refusal_of({}, {.max_new_tokens = 1}, small),
            "block_length is 32; expected at most the model's context of 31");
  EXPECT_NE(
      refusal_of({}, {.sub_block_length = 2, .editing_threshold = 0.5}, block_causal_package()),
      "accepted");
  EXPECT_EQ(refusal_of({}, {.stop_token_ids = Ids{mask_id}}),
            "stop_token_ids holds 15; expected ids in [0, 16) other than the mask token");
  EXPECT_EQ(refusal_of({}, {.threshold = 0.5, .remasking = Remasking::entropy}),
            "remasking 'entropy' goes by a schedule; expected neither threshold nor factor nor "
            "frechet");
  EXPECT_EQ(refusal_of({}, {.steps = 2, .steps_per_block = 2}),
            "steps and steps_per_block are both given; expected one of them");
}

TEST(Engine, RefusesTwoRulesForOnePass) {
  const std::string known = "; expected one of threshold, factor, frechet, entropy_bound";
  EXPECT_EQ(refusal_of({}, {.threshold = 0.5, .frechet = 0.5}),
            "frechet is given beside another rule" + known);
  EXPECT_EQ(refusal_of({}, {.frechet = 0.5, .entropy_bound = 0.5}),
            "frechet is given beside another rule" + known);
  EXPECT_EQ(refusal_of({}, {.factor = 0.5, .entropy_bound = 0.5}),
            "entropy_bound is given beside another rule" + known);
  EXPECT_EQ(refusal_of({}, {.entropy_bound = 0.5, .remasking = Remasking::origin}),
            "remasking 'origin' goes by a schedule; expected no entropy_bound");
  EXPECT_EQ(refusal_of({}, {.entropy_bound = 0.5, .remasking = Remasking::entropy}), "accepted");
}

TEST(Engine, RefusesTokensThatTheModelDoesNotHave) {
  const std::string known = "; expected ids in [0, 16) other than the mask token";
  EXPECT_EQ(refusal_of({}, {.logit_bias = {{16, 1.0}}}), "logit_bias holds 16" + known);
  EXPECT_EQ(refusal_of({}, {.banned_token_ids = {mask_id}}), "banned_token_ids holds 15" + known);
  Ids all(15);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(
      refusal_of({}, {.banned_token_ids = all}),
      "banned_token_ids holds every token but the mask token; expected at least one to remain");
}

TEST(Engine, RefusesFactsThatThisRuntimeDoesNotHonour) {
  PackageInfo package = block_causal_package();
  package.logits_shift = 1;  // and no seed token: nothing would predict a block's first position
  EXPECT_THROW(Engine(package, std::make_unique<ScriptedSession>()), Error);
}

TEST(Engine, RefusesABlockLengthOfBidirectionalLogitsAndSubBlocksOfABidirectionalPackage) {
  Engine engine(scripted_package(), std::make_unique<ScriptedSession>());
  EXPECT_THROW(static_cast<void>(engine.logits(Ids{1}, Ids{0}, 4)), Error);
  PackageInfo package = scripted_package();
  package.sub_block_length = 2;
  EXPECT_THROW(Engine(package, std::make_unique<ScriptedSession>()), Error);
}

TEST(Engine, RefusesACallFromItsOwnCallback) {
  Engine engine(scripted_package(), std::make_unique<ScriptedSession>());
  EXPECT_THROW(static_cast<void>(engine.generate({}, {.max_new_tokens = 2},
                                                 [&](const CommitEvent&) {
                                                   static_cast<void>(engine.generate({}, {}));
                                                   return true;
                                                 })),
               Error);
  EXPECT_EQ(engine.generate({}, {.max_new_tokens = 2}).token_ids.size(), 2U);
}

TEST(Engine, ServesTwoThreadsOneAfterAnother) {
  Engine engine(scripted_package(), std::make_unique<ScriptedSession>());
  const auto work = [&engine] {
    for (int i = 0; i < 50; ++i) {
      EXPECT_EQ(engine.generate({}, {.max_new_tokens = 5}).token_ids, (Ids{3, 3, 3, 3, 3}));
    }
  };
  std::thread other(work);
  work();
  other.join();
}

TEST(Engine, LogitsAreThoseOfThePositionsAskedFor) {
  auto session = std::make_unique<ScriptedSession>();
  session->logit_script = [](auto, std::int64_t position, std::int64_t v) {
    return static_cast<float>(100 * position + v);
  };
  Engine engine(scripted_package(), std::move(session));
  const std::vector<float> logits = engine.logits(Ids{1, mask_id, 2}, Ids{2, 0});
  ASSERT_EQ(logits.size(), 2U * vocab_size);
  EXPECT_EQ(logits[0], 200.0F);
  EXPECT_EQ(logits[vocab_size + 3], 3.0F);
  const std::vector<float> row =
      engine.logits(Ids{1, mask_id, 2}, Ids{1});  // a run has two at least
  ASSERT_EQ(row.size(), std::size_t{vocab_size});
  EXPECT_EQ(row[5], 105.0F);
  EXPECT_THROW(static_cast<void>(engine.logits(Ids{1}, Ids{1})), Error);
  EXPECT_THROW(static_cast<void>(engine.logits({}, {})), Error);
}

TEST(Engine, LogitsThatMemoryCannotHoldAreRefusedByName) {
  auto session = std::make_unique<ScriptedSession>();
  session->before_run = [](std::int64_t) { throw std::bad_alloc(); };
  Engine engine(scripted_package(), std::move(session));
  try {
    static_cast<void>(engine.logits(Ids{1, mask_id, 2}, Ids{2, 0}));
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_config);
    EXPECT_EQ(std::string(error.what()),
              "there is no memory for a pass of 3 ids that hands back 2 positions of " +
                  std::to_string(vocab_size) + " logits");
  }
}

}  // namespace
}  // namespace fastdllm::testing
