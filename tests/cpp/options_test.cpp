// Options of a generation by name, as text.
#include <gtest/gtest.h>

#include <string>

#include "fastdllm/error.hpp"
#include "fastdllm/options.hpp"

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

/// The text of a value in range that is not the option's default.
std::string other_value(const OptionInfo& option) {
  switch (option.type) {
    case OptionType::integer:
    case OptionType::number: {
      const double lowest = option.minimum.value_or(-1.0);
      const double step = option.type == OptionType::integer ? 3.0 : 0.25;
      std::string text = std::to_string(lowest + step);
      if (option.type == OptionType::integer) text.resize(text.find('.'));
      return text;
    }
    case OptionType::flag: return option.default_text == "true" ? "false" : "true";
    case OptionType::choice:
      return std::string(option.choices.front() == option.default_text ? option.choices.back()
                                                                       : option.choices.front());
    case OptionType::text:
    case OptionType::path: return "other";
    case OptionType::ids: return "1,2";
    case OptionType::biases: return "12=-1.5,7=2";
  }
  return "";
}

/// Every field with a value that is not its default.
template <typename Struct>
Struct full_options(OptionGroup group) {
  Struct options;
  for (const OptionInfo& option : option_table()) {
    if (option.group == group) set_option(options, option.name, other_value(option));
  }
  return options;
}

GenerationConfig full_config() {
  return full_options<GenerationConfig>(OptionGroup::generation);
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

template <typename Struct>
void expect_each_name_sets_its_own_field(OptionGroup group) {
  const Struct full = full_options<Struct>(group);
  for (const OptionInfo& option : option_table()) {
    if (option.group != group) continue;
    Struct options;
    const std::string text = get_option(full, option.name);
    EXPECT_NE(text, option.default_text) << option.name;
    set_option(options, option.name, text);
    for (const OptionInfo& other : option_table()) {
      if (other.group != group) continue;
      EXPECT_EQ(get_option(options, other.name),
                other.name == option.name ? text : other.default_text)
          << option.name << " and " << other.name;
    }
    set_option(options, option.name, option.default_text);
    EXPECT_EQ(get_option(options, option.name), option.default_text);
  }
}

TEST(Options, OfAllStructsHaveNames) {
  expect_each_name_sets_its_own_field<GenerationConfig>(OptionGroup::generation);
  expect_each_name_sets_its_own_field<SessionOptions>(OptionGroup::session);
  expect_each_name_sets_its_own_field<EngineLimits>(OptionGroup::engine);
}

template <typename Struct>
std::string range_error(std::string_view name, const std::string& text) {
  Struct options;
  set_option(options, name, text);
  try {
    if constexpr (std::is_same_v<Struct, GenerationConfig>) {
      if (name == "threshold_decay") options.threshold = 0.9;
    }
    validate(options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_config);
    return error.what();
  }
  return "";
}

std::string range_error(const OptionInfo& option, double value) {
  std::string text = std::to_string(value);
  if (option.type == OptionType::integer) text.resize(text.find('.'));
  switch (option.group) {
    case OptionGroup::generation: return range_error<GenerationConfig>(option.name, text);
    case OptionGroup::session: return range_error<SessionOptions>(option.name, text);
    case OptionGroup::engine: return range_error<EngineLimits>(option.name, text);
  }
  return "";
}

TEST(Options, EndsOfRangesAreCheckedAsTheTableSays) {
  for (const OptionInfo& option : option_table()) {
    if (option.type != OptionType::integer && option.type != OptionType::number) continue;
    if (option.name == "seed") continue;  // its text is checked when it is read
    const double step = option.type == OptionType::integer ? 1.0 : 1e-3;
    if (option.minimum && !(option.group == OptionGroup::engine && option.optional)) {
      const std::string below = range_error(option, *option.minimum - step);
      EXPECT_TRUE(below.starts_with(std::string(option.name) + " is ")) << option.name << below;
      EXPECT_EQ(range_error(option, *option.minimum).empty(), !option.minimum_excluded)
          << option.name;
      EXPECT_EQ(range_error(option, *option.minimum + step), "") << option.name;
    }
    if (option.maximum) {
      EXPECT_NE(range_error(option, *option.maximum + step), "") << option.name;
      EXPECT_EQ(range_error(option, *option.maximum).empty(), !option.maximum_excluded)
          << option.name;
    }
  }
}

TEST(Options, EachHasAHelpAVersionAndADefaultInRange) {
  for (const OptionInfo& option : option_table()) {
    EXPECT_FALSE(option.help.empty()) << option.name;
    EXPECT_FALSE(option.since.empty()) << option.name;
    EXPECT_EQ(option.choices.empty(), option.type != OptionType::choice) << option.name;
  }
  validate(GenerationConfig{});
  validate(SessionOptions{});
  validate(EngineLimits{});
}

TEST(Options, AnUnknownNameIsToldWhatWasMeant) {
  EXPECT_EQ(error_of("treshold", "1"),
            "'treshold' is no option of a generation; did you mean threshold?");
  EXPECT_EQ(error_of("steps-per-block", "1"),
            "'steps-per-block' is no option of a generation; did you mean steps_per_block?");
  EngineLimits limits;
  try {
    set_option(limits, "max_bacth", "1");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "'max_bacth' is no option of an engine; did you mean max_batch?");
  }
}

TEST(Options, OfSessionsAndEnginesSayWhatTheyTake) {
  SessionOptions session;
  EXPECT_THROW(set_option(session, "backend", "onnx"), Error);
  set_option(session, "onnxruntime_library", "none");
  EXPECT_EQ(session.onnxruntime_library, "");
  EngineLimits limits{.cache_bytes = 5};
  EXPECT_THROW(set_option(limits, "cache_bytes", "0"), Error);
  set_option(limits, "cache_bytes", "none");
  EXPECT_EQ(limits.cache_bytes, 0);
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
