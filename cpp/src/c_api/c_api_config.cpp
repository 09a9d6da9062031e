// Options of the C API: fastdllm_config and its companions, as C++ has them.
#include <span>
#include <string>
#include <type_traits>

#include "c_api/c_api.hpp"
#include "config/option_table.hpp"

namespace fastdllm::c_api {
namespace {

template <typename T>
inline constexpr bool has_count = !std::is_null_pointer_v<std::remove_cvref_t<T>>;

/// An option's field of C. One that is not given is FASTDLLM_NONE there, a text or list NULL: what
/// these point to is for the caller to give.
template <typename C, typename Row, typename Value>
void field_to_c(C& c, const Row& row, const Value& value) noexcept {
  auto& field = c.*row.c_member;
  using Field = std::remove_cvref_t<decltype(field)>;
  if constexpr (has_count<decltype(row.c_count)>) {
    c.*row.c_count = is_optional<Value> ? FASTDLLM_NONE : 0;
  } else if constexpr (is_optional<Value>) {
    field = value.value_or(static_cast<Field>(FASTDLLM_NONE));
  } else if constexpr (!std::is_pointer_v<Field>) {
    field = static_cast<Field>(value);
  }
}

template <typename C, typename Struct>
void to_c(C& c, const Struct& options) noexcept {
  for_each_option<Struct>([&](const auto& row) { field_to_c(c, row, options.*row.member); });
}

template <typename Enum>
Enum enum_of(std::string_view name, std::int32_t number) {
  std::string known;
  for (const Enum value : values_of<Enum>()) {
    const auto its_number = static_cast<std::int32_t>(value);
    if (its_number == number) return value;
    known += concat(known.empty() ? "" : ", ", its_number, " (", name_of(value), ")");
  }
  throw Error(ErrorCode::bad_config, concat(name, " is ", number, "; expected one of ", known));
}

template <typename Value, typename Item>
Value list_of(std::span<const Item> items) {
  Value list;
  for (const Item& item : items) {
    if constexpr (std::is_same_v<Item, fastdllm_logit_bias>) {
      list.emplace_back(item.token_id, item.bias);
    } else {
      list.push_back(item);
    }
  }
  return list;
}

/// An option's value as C has it. Errors: Error{bad_config}, StatusError.
template <typename Value, typename C, typename Row>
Value from_c(const C& c, const Row& row) {
  const auto& field = c.*row.c_member;
  if constexpr (has_count<decltype(row.c_count)>) {
    const std::int64_t count = c.*row.c_count;
    if constexpr (is_optional<Value>) {
      if (count == FASTDLLM_NONE) return std::nullopt;
      return list_of<typename Value::value_type>(span_of(field, count, row.name));
    } else {
      return list_of<Value>(span_of(field, count, row.name));
    }
  } else if constexpr (is_optional<Value>) {
    using Field = std::remove_cvref_t<decltype(field)>;
    return field == static_cast<Field>(FASTDLLM_NONE) ? Value{} : Value{field};
  } else if constexpr (std::is_enum_v<Value>) {
    return enum_of<Value>(row.name, field);
  } else if constexpr (std::is_same_v<Value, bool>) {
    return field != 0;
  } else {
    return field;
  }
}

/// A text that is NULL leaves the default.
template <typename Struct, typename C>
Struct from_c_struct(const C& c) {
  Struct options;
  for_each_option<Struct>([&](const auto& row) {
    if constexpr (std::is_same_v<ValueOf<Struct, decltype(row)>, std::string>) {
      if (c.*row.c_member == nullptr) return;
    }
    options.*row.member = from_c<ValueOf<Struct, decltype(row)>>(c, row);
  });
  return options;
}

/// Sets a field of a struct that may be of an older header. Errors: Error{bad_config}.
template <typename Row, typename Value>
void set_field(fastdllm_config& config, const Row& row, const Value& value) {
  if constexpr (has_count<decltype(row.c_count)>) {
    throw Error(ErrorCode::bad_config,
                concat(row.name, " is a list; expected its fields of fastdllm_config to be set"));
  } else {
    fastdllm_config whole{};
    const auto* begin = reinterpret_cast<const char*>(&whole);
    const auto* field = reinterpret_cast<const char*>(&(whole.*row.c_member));
    if (static_cast<std::size_t>(field - begin) >= config.struct_size) {
      throw Error(ErrorCode::bad_config,
                  concat("fastdllm_config is of an older version, which has no ", row.name));
    }
    field_to_c(config, row, value);
  }
}

fastdllm_config default_config() noexcept {
  fastdllm_config c{};
  to_c(c, GenerationConfig{});
  return c;
}

fastdllm_engine_options default_options() noexcept {
  fastdllm_engine_options c{};
  to_c(c, SessionOptions{});
  to_c(c, EngineLimits{});
  return c;
}

}  // namespace

GenerationConfig config_of(const fastdllm_config* given) {
  return from_c_struct<GenerationConfig>(read_struct(given, default_config(), "fastdllm_config"));
}

EngineSetup setup_of(const fastdllm_engine_options* given) {
  const fastdllm_engine_options c =
      read_struct(given, default_options(), "fastdllm_engine_options");
  return {from_c_struct<SessionOptions>(c), from_c_struct<EngineLimits>(c)};
}

}  // namespace fastdllm::c_api

using namespace fastdllm::c_api;

fastdllm_status fastdllm_config_default(fastdllm_config* config, std::size_t size) {
  return write_struct(config, size, default_config());
}

fastdllm_status fastdllm_config_set(fastdllm_config* config, const char* name, const char* value,
                                    fastdllm_output** output) {
  return make(output, [&](fastdllm_output& made) {
    (void)read_struct(&require(config, "config"), default_config(), "fastdllm_config");
    fastdllm::GenerationConfig options;
    const std::string_view option = &require(name, "name");
    set_option(options, option, &require(value, "value"));
    fastdllm::visit_option<fastdllm::GenerationConfig>(
        option, [&](const auto& row) { set_field(*config, row, options.*row.member); });
    made.value = get_option(options, option);
  });
}

fastdllm_status fastdllm_config_get(const fastdllm_config* config, const char* name,
                                    fastdllm_output** output) {
  return make(output, [&](fastdllm_output& made) {
    made.value = get_option(config_of(&require(config, "config")), &require(name, "name"));
  });
}

fastdllm_status fastdllm_engine_options_default(fastdllm_engine_options* options,
                                                std::size_t size) {
  return write_struct(options, size, default_options());
}

fastdllm_status fastdllm_callbacks_default(fastdllm_callbacks* callbacks, std::size_t size) {
  return write_struct(callbacks, size, fastdllm_callbacks{});
}
