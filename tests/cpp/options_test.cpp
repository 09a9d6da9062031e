// Options of a generation by name, as text.
#include <gtest/gtest.h>

#include <string>

#include "fastdllm/error.hpp"
#include "fastdllm/generation.hpp"

namespace fastdllm {
namespace {

GenerationConfig with(std::string_view name, std::string_view value) {
  GenerationConfig config;
  set_option(config, name, value);
  return config;
}

std::string error_of(std::string_view name, std::string_view value) {
  try {
    (void)with(name, value);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_config);
    return error.what();
  }
  return "no error";
}

/// Every field with a value that is not its default.
GenerationConfig full_config() {
  return {.max_new_tokens = 7,
          .block_length = 8,
          .sub_block_length = 4,
          .steps = 9,
          .steps_per_block = 3,
          .eps = 1e-3,
          .threshold = 0.1,
          .threshold_decay = 0.25,
          .factor = 1.5,
          .frechet = 0.3,
          .entropy_bound = 0.7,
          .cache = CacheMode::prefix,
          .suffix_window = 64,
          .refresh_interval = 2,
          .deferred_window = 33,
          .refresh_tokens = 5,
          .remasking = Remasking::margin,
          .temperature = 0.8,
          .top_p = 0.95,
          .top_k = 40,
          .min_p = 0.05,
          .logit_bias = {{12, -1.5}, {7, 2.0}},
          .banned_token_ids = {1, 2},
          .alg_temp = 0.2,
          .cfg_scale = 1.0 / 3.0,
          .seed = ~std::uint64_t{0},
          .editing_threshold = 0.9,
          .max_post_steps = 4,
          .stop_token_ids = std::vector<std::int32_t>{3, 5},
          .stop_at = StopAt::block,
          .ignore_eos = true};
}

TEST(Options, WhatIsWrittenReadsAsTheSame) {
  for (const GenerationConfig& config : {GenerationConfig{}, full_config()}) {
    GenerationConfig copy = config == GenerationConfig{} ? full_config() : GenerationConfig{};
    for (const std::string_view name : option_names()) {
      set_option(copy, name, get_option(config, name));
    }
    EXPECT_EQ(copy, config);
  }
}

TEST(Options, EachNameSetsItsOwnFieldOnly) {
  for (const std::string_view name : option_names()) {
    const GenerationConfig config = with(name, get_option(full_config(), name));
    for (const std::string_view other : option_names()) {
      EXPECT_EQ(get_option(config, other),
                get_option(other == name ? full_config() : GenerationConfig{}, other))
          << name << " and " << other;
    }
  }
}

TEST(Options, ListsAreSetAndEmptied) {
  EXPECT_EQ(with("logit_bias", "12=-1.5").logit_bias,
            (std::vector<std::pair<std::int32_t, double>>{{12, -1.5}}));
  EXPECT_TRUE(with("banned_token_ids", "").banned_token_ids.empty());
  EXPECT_EQ(with("stop_token_ids", "").stop_token_ids, std::vector<std::int32_t>{});
  EXPECT_EQ(with("stop_token_ids", "none").stop_token_ids, std::nullopt);
}

TEST(Options, AnErrorNamesTheOptionWhatIsExpectedAndWhatWasFound) {
  EXPECT_EQ(error_of("max_new_tokens", "x"), "max_new_tokens is 'x'; expected an integer");
  EXPECT_EQ(error_of("max_new_tokens", "1.0"), "max_new_tokens is '1.0'; expected an integer");
  EXPECT_EQ(error_of("max_new_tokens", "9223372036854775808"),
            "max_new_tokens is '9223372036854775808'; expected an integer");
  EXPECT_EQ(error_of("max_new_tokens", "none"), "max_new_tokens is 'none'; expected an integer");
  EXPECT_EQ(error_of("threshold", ""), "threshold is ''; expected a number, or none");
  EXPECT_EQ(error_of("threshold", "0.9 "), "threshold is '0.9 '; expected a number, or none");
  EXPECT_EQ(error_of("seed", "-1"), "seed is '-1'; expected an integer in [0, 2^64)");
  EXPECT_EQ(error_of("ignore_eos", "yes"), "ignore_eos is 'yes'; expected true or false");
  EXPECT_EQ(error_of("cache", "triple"),
            "cache is 'triple'; expected one of 'none', 'prefix', 'dual', 'auto'");
  EXPECT_EQ(error_of("banned_token_ids", "1,,2"),
            "banned_token_ids is '1,,2'; expected ids such as 1,2,3");
  EXPECT_EQ(error_of("banned_token_ids", "1,"),
            "banned_token_ids is '1,'; expected ids such as 1,2,3");
  EXPECT_EQ(error_of("logit_bias", "12"),
            "logit_bias is '12'; expected ids and numbers such as 12=-1.5,7=2");
  EXPECT_EQ(error_of("logit_bias", "3000000000=1"),
            "logit_bias is '3000000000=1'; expected ids and numbers such as 12=-1.5,7=2");
  EXPECT_NE(error_of("block_size", "8").find("'block_size' is no option"), std::string::npos);
  EXPECT_NE(error_of("block_size", "8").find("block_length"), std::string::npos);
}

TEST(Options, APlusStandsBeforeANumberOnly) {
  EXPECT_EQ(with("seed", "+5").seed, 5);
  EXPECT_EQ(with("threshold", "+0.5").threshold, 0.5);
  EXPECT_EQ(with("banned_token_ids", "+1,2").banned_token_ids, (std::vector<std::int32_t>{1, 2}));
  for (const char* text : {"+", "++5", "+-5", "-+5"}) {
    EXPECT_NE(error_of("max_new_tokens", text), "no error") << text;
  }
}

TEST(Options, AnErrorHoldsNoControlCharacter) {
  EXPECT_EQ(error_of("cache", std::string_view("a\0b", 3)),
            "cache is 'a\\u0000b'; expected one of 'none', 'prefix', 'dual', 'auto'");
  EXPECT_EQ(error_of("seed", "\x1b[2J"), "seed is '\\u001b[2J'; expected an integer in [0, 2^64)");
}

TEST(Options, WhatDoesNotParseChangesNothing) {
  GenerationConfig config = full_config();
  EXPECT_THROW(set_option(config, "stop_token_ids", "1,x"), Error);
  EXPECT_EQ(config, full_config());
}

TEST(Options, TheDefaultRuleGivesWayToAnyOther) {
  EXPECT_EQ(with_default_rule({}).threshold, 0.9);
  EXPECT_EQ(with_default_rule(with("temperature", "0.8")).threshold, 0.9);
  for (const auto& [name, value] :
       {std::pair("steps", "8"), std::pair("steps_per_block", "8"), std::pair("eps", "0.1"),
        std::pair("factor", "1"), std::pair("threshold", "0.5"), std::pair("frechet", "0.2"),
        std::pair("entropy_bound", "0.1"), std::pair("remasking", "entropy"),
        std::pair("remasking", "sequential"), std::pair("remasking", "origin")}) {
    EXPECT_EQ(with_default_rule(with(name, value)), with(name, value)) << name;
  }
}

TEST(Options, RangesAreForValidateToSay) {
  const GenerationConfig config = with("threshold", "nan");
  EXPECT_THROW(validate(config), Error);
  EXPECT_THROW(validate(with("top_p", "inf")), Error);
}

}  // namespace
}  // namespace fastdllm
