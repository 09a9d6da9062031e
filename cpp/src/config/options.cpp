// The options of a generation by name, as text: what command lines, services and scripts have.
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "fastdllm/error.hpp"
#include "fastdllm/generation.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

constexpr std::string_view none = "none";

[[noreturn]] void reject(std::string_view option, std::string_view text,
                         std::string_view expected) {
  throw Error(ErrorCode::bad_config,
              printable(concat(option, " is '", text, "'; expected ", expected)));
}

/// Text to a value and back. `expected` says in words what text there may be.
template <typename Value>
struct Text;

template <typename Value>
  requires std::is_arithmetic_v<Value>
struct Text<Value> {
  static constexpr std::string_view expected = std::is_floating_point_v<Value> ? "a number"
                                               : std::is_signed_v<Value>
                                                   ? "an integer"
                                                   : "an integer in [0, 2^64)";
  static std::optional<Value> read(std::string_view text) {
    Value value{};
    if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc{} || stop != end) return {};
    return value;
  }
  static std::string write(Value value) {
    std::array<char, 32> text{};  // the shortest digits that read() turns into the same value
    return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
  }
};

template <>
struct Text<bool> {
  static constexpr std::string_view expected = "true or false";
  static std::optional<bool> read(std::string_view text) {
    if (text != "true" && text != "false") return {};
    return text == "true";
  }
  static std::string write(bool value) { return value ? "true" : "false"; }
};

/// "12=-1.5"
template <>
struct Text<std::pair<std::int32_t, double>> {
  static constexpr std::string_view expected = "ids and numbers such as 12=-1.5,7=2";
  static std::optional<std::pair<std::int32_t, double>> read(std::string_view text) {
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) return {};
    const auto id = Text<std::int32_t>::read(text.substr(0, equals));
    const auto bias = Text<double>::read(text.substr(equals + 1));
    if (!id || !bias) return {};
    return std::pair(*id, *bias);
  }
  static std::string write(const std::pair<std::int32_t, double>& value) {
    return concat(value.first, "=", Text<double>::write(value.second));
  }
};

/// Items with commas between them; none at all is an empty list.
template <typename Item>
struct Text<std::vector<Item>> {
  static constexpr std::string_view expected =
      std::is_integral_v<Item> ? "ids such as 1,2,3"
                               : Text<std::pair<std::int32_t, double>>::expected;
  static std::optional<std::vector<Item>> read(std::string_view text) {
    std::vector<Item> items;
    while (!text.empty()) {
      const std::size_t comma = std::min(text.find(','), text.size());
      const auto item = Text<Item>::read(text.substr(0, comma));
      if (!item || comma + 1 == text.size()) return {};
      items.push_back(*item);
      text.remove_prefix(std::min(comma + 1, text.size()));
    }
    return items;
  }
  static std::string write(const std::vector<Item>& items) {
    std::string text;
    for (const Item& item : items) {
      if (!text.empty()) text += ',';
      text += Text<Item>::write(item);
    }
    return text;
  }
};

template <typename Value>
void read_into(Value& field, std::string_view option, std::string_view text) {
  const std::optional<Value> value = Text<Value>::read(text);
  if (!value) reject(option, text, Text<Value>::expected);
  field = *value;
}

template <typename Value>
void read_into(std::optional<Value>& field, std::string_view option, std::string_view text) {
  if (text == none) {
    field.reset();
    return;
  }
  const std::optional<Value> value = Text<Value>::read(text);
  if (!value) reject(option, text, concat(Text<Value>::expected, ", or none"));
  field = *value;
}

void read_into(CacheMode& field, std::string_view, std::string_view text) {
  field = parse_cache_mode(text);
}

void read_into(Remasking& field, std::string_view, std::string_view text) {
  field = parse_remasking(text);
}

void read_into(StopAt& field, std::string_view, std::string_view text) {
  field = parse_stop_at(text);
}

template <typename Value>
std::string written(const Value& field) {
  if constexpr (std::is_enum_v<Value>) {
    return std::string(name_of(field));
  } else {
    return Text<Value>::write(field);
  }
}

template <typename Value>
std::string written(const std::optional<Value>& field) {
  return field ? written(*field) : std::string(none);
}

struct Option {
  std::string_view name;
  void (*set)(GenerationConfig& config, std::string_view option, std::string_view text);
  std::string (*get)(const GenerationConfig& config);
};

template <auto field>
constexpr Option option(std::string_view name) {
  return {name,
          [](GenerationConfig& config, std::string_view its_name, std::string_view text) {
            read_into(config.*field, its_name, text);
          },
          [](const GenerationConfig& config) { return written(config.*field); }};
}

using Config = GenerationConfig;
constexpr std::array options{
    option<&Config::max_new_tokens>("max_new_tokens"),
    option<&Config::block_length>("block_length"),
    option<&Config::sub_block_length>("sub_block_length"),
    option<&Config::steps>("steps"),
    option<&Config::steps_per_block>("steps_per_block"),
    option<&Config::eps>("eps"),
    option<&Config::threshold>("threshold"),
    option<&Config::threshold_decay>("threshold_decay"),
    option<&Config::factor>("factor"),
    option<&Config::frechet>("frechet"),
    option<&Config::entropy_bound>("entropy_bound"),
    option<&Config::cache>("cache"),
    option<&Config::suffix_window>("suffix_window"),
    option<&Config::refresh_interval>("refresh_interval"),
    option<&Config::deferred_window>("deferred_window"),
    option<&Config::refresh_tokens>("refresh_tokens"),
    option<&Config::remasking>("remasking"),
    option<&Config::temperature>("temperature"),
    option<&Config::top_p>("top_p"),
    option<&Config::top_k>("top_k"),
    option<&Config::min_p>("min_p"),
    option<&Config::logit_bias>("logit_bias"),
    option<&Config::banned_token_ids>("banned_token_ids"),
    option<&Config::alg_temp>("alg_temp"),
    option<&Config::cfg_scale>("cfg_scale"),
    option<&Config::seed>("seed"),
    option<&Config::editing_threshold>("editing_threshold"),
    option<&Config::max_post_steps>("max_post_steps"),
    option<&Config::stop_token_ids>("stop_token_ids"),
    option<&Config::stop_at>("stop_at"),
    option<&Config::ignore_eos>("ignore_eos"),
};

constexpr auto names = [] {
  std::array<std::string_view, options.size()> all;
  std::transform(options.begin(), options.end(), all.begin(),
                 [](const Option& one) { return one.name; });
  return all;
}();

const Option& named(std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    std::string known;
    for (const std::string_view one : names) known += concat(known.empty() ? "" : ", ", one);
    throw Error(
        ErrorCode::bad_config,
        printable(concat("'", name, "' is no option of a generation; expected one of ", known)));
  }
  return options[static_cast<std::size_t>(found - names.begin())];
}

}  // namespace

GenerationConfig with_default_rule(GenerationConfig config) {
  const bool by_schedule = config.remasking == Remasking::entropy ||
                           config.remasking == Remasking::sequential ||
                           config.remasking == Remasking::origin;
  const bool has_rule = config.steps || config.steps_per_block || config.eps || config.factor ||
                        config.threshold || config.frechet || config.entropy_bound;
  if (!by_schedule && !has_rule) config.threshold = 0.9;
  return config;
}

std::span<const std::string_view> option_names() noexcept {
  return names;
}

void set_option(GenerationConfig& config, std::string_view name, std::string_view value) {
  const Option& option = named(name);
  option.set(config, option.name, value);
}

std::string get_option(const GenerationConfig& config, std::string_view name) {
  return named(name).get(config);
}

}  // namespace fastdllm
