// Options by name, as text, for command lines, services and scripts.
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "config/option_table.hpp"

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

template <typename Value>
  requires std::is_enum_v<Value>
void read_into(Value& field, std::string_view option, std::string_view text) {
  field = parse_choice<Value>(option, text);
}

template <typename Row>
void read_text(std::string& field, const Row& row, std::string_view text) {
  if (!row.choices.empty() && std::ranges::find(row.choices, text) == row.choices.end()) {
    std::string known;
    for (const auto one : row.choices) known += concat(known.empty() ? "" : ", ", "'", one, "'");
    reject(row.name, text, "one of " + known);
  }
  field = row.is_path && text == none ? "" : text;
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

template <typename Struct>
constexpr std::string_view kind = "generation";
template <>
constexpr std::string_view kind<SessionOptions> = "session";
template <>
constexpr std::string_view kind<EngineLimits> = "engine";

// Errors: Error{bad_config} for a name that there is not.
template <typename Struct, typename Visit>
void visit_named(std::string_view name, const Visit& visit) {
  if (visit_option<Struct>(name, visit)) return;
  throw Error(
      ErrorCode::bad_config,
      printable(concat("'", name, "' is no option of ", kind<Struct> == "engine" ? "an " : "a ",
                       kind<Struct>, meant(name, names_of<Struct>()))));
}

template <typename Struct>
void set_named(Struct& options, std::string_view name, std::string_view text) {
  visit_named<Struct>(name, [&](const auto& row) {
    auto& field = options.*row.member;
    using Value = std::remove_cvref_t<decltype(field)>;
    if constexpr (std::is_same_v<Value, std::string>) {
      read_text(field, row, text);
    } else if constexpr (std::is_same_v<Value, std::int64_t>) {
      if (!row.zero_is_none) return read_into(field, row.name, text);
      std::optional<Value> value;
      read_into(value, row.name, text);
      if (value == Value{}) reject(row.name, text, "at least 1, or none");
      field = value.value_or(Value{});
    } else {
      read_into(field, row.name, text);
    }
  });
}

template <typename Struct>
std::string get_named(const Struct& options, std::string_view name) {
  std::string text;
  visit_named<Struct>(name, [&](const auto& row) {
    const auto& field = options.*row.member;
    using Value = std::remove_cvref_t<decltype(field)>;
    if constexpr (std::is_same_v<Value, std::string>) {
      text = row.is_path && field.empty() ? none : field;
    } else {
      text = row.zero_is_none && field == Value{} ? none : written(field);
    }
  });
  return text;
}

constexpr auto generation_names =
    std::apply([](const auto&... rows) { return std::array{rows.name...}; }, generation_options);

}  // namespace

GenerationConfig with_default_rule(GenerationConfig config) {
  const bool by_schedule = config.remasking == Remasking::entropy ||
                           config.remasking == Remasking::sequential ||
                           config.remasking == Remasking::origin;
  bool has_rule = false;
  for_each_option<GenerationConfig>([&](const auto& row) {
    if constexpr (is_optional<ValueOf<GenerationConfig, decltype(row)>>) {
      has_rule = has_rule || (row.is_rule && config.*row.member);
    }
  });
  if (!by_schedule && !has_rule) config.threshold = 0.9;
  return config;
}

std::span<const std::string_view> option_names() noexcept {
  return generation_names;
}

void set_option(GenerationConfig& config, std::string_view name, std::string_view value) {
  set_named(config, name, value);
}

void set_option(SessionOptions& options, std::string_view name, std::string_view value) {
  set_named(options, name, value);
}

void set_option(EngineLimits& limits, std::string_view name, std::string_view value) {
  set_named(limits, name, value);
}

std::string get_option(const GenerationConfig& config, std::string_view name) {
  return get_named(config, name);
}

std::string get_option(const SessionOptions& options, std::string_view name) {
  return get_named(options, name);
}

std::string get_option(const EngineLimits& limits, std::string_view name) {
  return get_named(limits, name);
}

}  // namespace fastdllm
