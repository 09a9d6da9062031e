// Options of the table in Python: types, values, keywords.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "config/option_table.hpp"

namespace fastdllm::python {

using Biases = std::vector<std::pair<std::int32_t, double>>;

/// The type of a value in a signature.
template <typename Value, typename Row>
std::string annotation_of(const Row& row) {
  if constexpr (is_optional<Value>) {
    return annotation_of<typename Value::value_type>(row) + " | None";
  } else if constexpr (std::is_same_v<Value, bool>) {
    return "bool";
  } else if constexpr (std::is_integral_v<Value>) {
    return row.zero_is_none ? "int | None" : "int";
  } else if constexpr (std::is_floating_point_v<Value>) {
    return "float";
  } else if constexpr (std::is_same_v<Value, std::vector<std::int32_t>>) {
    return "collections.abc.Sequence[int]";
  } else if constexpr (std::is_same_v<Value, Biases>) {
    return "collections.abc.Mapping[int, float] | collections.abc.Mapping[str, float]";
  } else {
    return row.is_path ? "str | os.PathLike[str] | None" : "str";
  }
}

template <typename Row, typename Value>
nanobind::object to_python(const Row& row, const Value& value) {
  namespace nb = nanobind;
  if constexpr (std::is_enum_v<Value>) {
    return nb::cast(std::string(name_of(value)));
  } else if constexpr (std::is_same_v<Value, Biases>) {
    nb::dict biases;
    for (const auto& [id, bias] : value) biases[nb::int_(id)] = bias;
    return biases;
  } else if constexpr (std::is_same_v<Value, std::string>) {
    return row.is_path && value.empty() ? nb::object(nb::none()) : nb::cast(value);
  } else {
    return row.zero_is_none && value == Value{} ? nb::object(nb::none()) : nb::cast(value);
  }
}

// Values may be objects whose conversion is Python code: a thread that Python ends there stays, it
// must not unwind through nanobind.

[[nodiscard]] std::string repr_of(nanobind::handle value);
/// An int; not valid for what is none.
[[nodiscard]] nanobind::object integer_from(nanobind::handle value);
/// False: not of the type.
[[nodiscard]] bool read_number(double& number, nanobind::handle value);
[[nodiscard]] bool read_integer(std::int64_t& number, nanobind::handle value);
[[nodiscard]] bool read_seed(std::uint64_t& seed, nanobind::handle value, std::string_view name);
[[nodiscard]] bool read_ids(std::vector<std::int32_t>& ids, nanobind::handle value,
                            std::string_view name);
[[nodiscard]] bool read_biases(Biases& biases, nanobind::handle value, std::string_view name);
[[nodiscard]] bool read_path(std::string& path, nanobind::handle value);

template <typename Row, typename Value>
bool from_python(const Row& row, Value& field, nanobind::handle value) {
  namespace nb = nanobind;
  if constexpr (is_optional<Value>) {
    if (value.is_none()) {
      field.reset();
      return true;
    }
    return from_python(row, field.emplace(), value);
  } else if constexpr (std::is_enum_v<Value>) {
    std::string name;
    if (!nb::try_cast<std::string>(nb::borrow(value), name)) return false;
    field = parse_choice<Value>(row.name, name);
    return true;
  } else if constexpr (std::is_same_v<Value, std::uint64_t>) {
    return read_seed(field, value, row.name);
  } else if constexpr (std::is_same_v<Value, std::vector<std::int32_t>>) {
    return read_ids(field, value, row.name);
  } else if constexpr (std::is_same_v<Value, Biases>) {
    return read_biases(field, value, row.name);
  } else {
    if constexpr (std::is_same_v<Value, std::string>) {
      if (row.is_path) return read_path(field, value);
    }
    if constexpr (std::is_same_v<Value, std::int64_t>) {
      if (row.zero_is_none && value.is_none()) {
        field = 0;
        return true;
      }
    }
    if constexpr (std::is_same_v<Value, std::int64_t>) {
      if (!read_integer(field, value)) return false;
    } else if constexpr (std::is_same_v<Value, double>) {
      if (!read_number(field, value)) return false;
    } else {
      if (!nb::try_cast<Value>(nb::borrow(value), field)) return false;
    }
    if (row.zero_is_none && field == Value{}) {
      throw Error(ErrorCode::bad_config, concat(row.name, " is 0; expected at least 1, or None"));
    }
    return true;
  }
}

/// Sets an option. Errors: TypeError for a value of another type; Error{bad_config}.
template <typename Struct, typename Row>
void set_from_python(Struct& options, const Row& row, nanobind::handle value) {
  namespace nb = nanobind;
  using Value = ValueOf<Struct, Row>;
  Value read{};
  if (!from_python(row, read, value)) {
    throw nb::type_error(
        concat(row.name, " is ", repr_of(value), "; expected ", annotation_of<Value>(row)).c_str());
  }
  options.*Row::member = std::move(read);
}

/// False: the struct has no option of that name.
template <typename Struct>
bool set_by_name(Struct& options, std::string_view name, nanobind::handle value) {
  return visit_option<Struct>(name, [&](const auto& row) { set_from_python(options, row, value); });
}

/// ", name: type = default" of each option of a struct.
template <typename Struct>
std::string keywords_of() {
  namespace nb = nanobind;
  std::string text;
  for_each_option<Struct>([&](const auto& row) {
    using Value = ValueOf<Struct, decltype(row)>;
    const nb::object standard = to_python(row, Struct{}.*row.member);
    text += concat(", ", row.name, ": ", annotation_of<Value>(row), " = ",
                   nb::cast<std::string>(nb::repr(standard)));
  });
  return text;
}

/// "name: help; at least 1." of each option of a struct, in lines.
[[nodiscard]] std::string help_of(OptionGroup group);

/// Errors: TypeError naming what is near, or all that there are.
[[noreturn]] void reject_option(std::string_view owner, std::string_view name,
                                std::span<const std::string_view> names);

/// What an engine is opened with, of its keywords. Errors: TypeError; Error{bad_config}.
struct EngineKeywords {
  SessionOptions session;
  EngineLimits limits;
};
[[nodiscard]] EngineKeywords engine_keywords(const nanobind::kwargs& given);
/// "def __init__(self, package_dir: ..., *, threads: int = 0, ...) -> None"
[[nodiscard]] std::string engine_signature();

}  // namespace fastdllm::python
