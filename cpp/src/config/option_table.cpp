// Names, types and ranges from the table of options, as text, and the checks that follow from it.
#include "config/option_table.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fastdllm {
namespace {

template <typename Value>
constexpr OptionType type_of(bool is_path, bool has_choices) {
  if constexpr (is_optional<Value>) {
    return type_of<typename Value::value_type>(is_path, has_choices);
  } else if constexpr (std::is_same_v<Value, bool>) {
    return OptionType::flag;
  } else if constexpr (std::is_enum_v<Value>) {
    return OptionType::choice;
  } else if constexpr (std::is_floating_point_v<Value>) {
    return OptionType::number;
  } else if constexpr (std::is_integral_v<Value>) {
    return OptionType::integer;
  } else if constexpr (std::is_same_v<Value, std::string>) {
    return is_path ? OptionType::path : has_choices ? OptionType::choice : OptionType::text;
  } else if constexpr (std::is_integral_v<typename Value::value_type>) {
    return OptionType::ids;
  } else {
    return OptionType::biases;
  }
}

// "at least 1", "from 0 to 256", "in (0, 1]"
std::string range_text(const OptionInfo& info) {
  const auto shown = [](double bound) {
    const double power = std::log2(bound);
    return bound > 1000 && power == std::floor(power) ? concat("2^", power) : concat(bound);
  };
  if (info.minimum && info.maximum) {
    return concat("in ", info.minimum_excluded ? '(' : '[', shown(*info.minimum), ", ",
                  shown(*info.maximum), info.maximum_excluded ? ')' : ']');
  }
  if (info.minimum) {
    return concat(info.minimum_excluded ? "more than " : "at least ", shown(*info.minimum));
  }
  return info.maximum ? concat("at most ", shown(*info.maximum)) : "";
}

template <typename Struct, typename Row>
OptionInfo info_of(OptionGroup group, const Row& row) {
  using Value = ValueOf<Struct, Row>;
  OptionInfo info{.group = group,
                  .name = row.name,
                  .type = type_of<Value>(row.is_path, !row.choices.empty()),
                  .optional = is_optional<Value> || row.is_path || row.zero_is_none,
                  .minimum_excluded = row.range.minimum_excluded,
                  .maximum_excluded = row.range.maximum_excluded,
                  .choices = {row.choices.begin(), row.choices.end()},
                  .default_text = get_option(Struct{}, row.name),
                  .since = row.since,
                  .help = row.help,
                  .is_rule = row.is_rule};
  if (std::isfinite(row.range.minimum)) info.minimum = row.zero_is_none ? 1 : row.range.minimum;
  if (std::isfinite(row.range.maximum)) info.maximum = row.range.maximum;
  if constexpr (std::is_enum_v<Value>) {
    for (const Value value : values_of<Value>()) info.choices.push_back(name_of(value));
  }
  info.range = range_text(info);
  return info;
}

template <typename Struct>
void add_options(std::vector<OptionInfo>& table, OptionGroup group) {
  for_each_option<Struct>([&](const auto& row) { table.push_back(info_of<Struct>(group, row)); });
}

/// How many letters are to be changed, added, left out or swapped with the next.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  std::vector<std::size_t> next(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    next[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = a[i - 1] == b[j - 1];
      next[j] = std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        next[j] = std::min(next[j], before[j - 2] + 1);
      }
    }
    std::swap(before, row);
    std::swap(row, next);
  }
  return row[b.size()];
}

}  // namespace

std::string_view name_of(OptionGroup group) noexcept {
  switch (group) {
    case OptionGroup::generation: return "generation";
    case OptionGroup::session: return "session";
    case OptionGroup::engine: return "engine";
  }
  return "unknown";
}

std::string_view name_of(OptionType type) noexcept {
  switch (type) {
    case OptionType::integer: return "integer";
    case OptionType::number: return "number";
    case OptionType::flag: return "flag";
    case OptionType::choice: return "choice";
    case OptionType::text: return "text";
    case OptionType::path: return "path";
    case OptionType::ids: return "ids";
    case OptionType::biases: return "biases";
  }
  return "unknown";
}

std::vector<OptionInfo> option_table() {
  std::vector<OptionInfo> table;
  add_options<GenerationConfig>(table, OptionGroup::generation);
  add_options<SessionOptions>(table, OptionGroup::session);
  add_options<EngineLimits>(table, OptionGroup::engine);
  return table;
}

std::string_view nearest_name(std::string_view name, std::span<const std::string_view> names) {
  constexpr std::size_t max_length = 64;  // of a name; a text of anyone may be long
  std::string_view nearest;
  std::size_t least = std::min(name.size(), max_length) / 3 + 1;
  if (name.size() > max_length) return nearest;
  for (const std::string_view one : names) {
    const std::size_t found = distance(name, one);
    if (found < least) {
      least = found;
      nearest = one;
    }
  }
  return nearest;
}

std::string meant(std::string_view name, std::span<const std::string_view> names) {
  const std::string_view near = nearest_name(name, names);
  if (!near.empty()) return concat("; did you mean ", near, "?");
  std::string known;
  for (const std::string_view one : names) known += concat(known.empty() ? "" : ", ", one);
  return "; expected one of " + known;
}

std::string number_in(const Range& range) {
  if (!std::isfinite(range.maximum)) {
    if (!std::isfinite(range.minimum)) return "a finite number";
    return concat("a finite number ", range.minimum_excluded ? "> " : ">= ", range.minimum);
  }
  return concat("a number in ", range.minimum_excluded ? '(' : '[', range.minimum, ", ",
                range.maximum, range.maximum_excluded ? ')' : ']');
}

void require_in_range(std::string_view option, const Range& range, std::int64_t value) {
  // Bounds of integers are small, or there are none: no digit is lost.
  if (std::isfinite(range.minimum) && value < static_cast<std::int64_t>(range.minimum)) {
    throw Error(ErrorCode::bad_config, concat(option, " is ", value, "; expected at least ",
                                              static_cast<std::int64_t>(range.minimum)));
  }
  if (std::isfinite(range.maximum) && value > static_cast<std::int64_t>(range.maximum)) {
    throw Error(ErrorCode::bad_config, concat(option, " is ", value, "; expected at most ",
                                              static_cast<std::int64_t>(range.maximum)));
  }
}

void require_in_range(std::string_view option, const Range& range, double value) {
  const bool enough = range.minimum_excluded ? value > range.minimum : value >= range.minimum;
  const bool few = range.maximum_excluded ? value < range.maximum : value <= range.maximum;
  if (std::isfinite(value) && enough && few) return;
  throw Error(ErrorCode::bad_config,
              concat(option, " is ", value, "; expected ", number_in(range)));
}

void validate(const SessionOptions& options) {
  require_ranges(options);
}

void validate(const EngineLimits& limits) {
  require_ranges(limits);
}

}  // namespace fastdllm
