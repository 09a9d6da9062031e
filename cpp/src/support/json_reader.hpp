// Typed reads from a JSON object whose errors name the file, the key, expected and found.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {

class JsonReader {
 public:
  /// object: borrowed. where: file name and the object's own key, for messages.
  JsonReader(const nlohmann::json& object, std::string where)
      : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("", "an object", object);
  }

  [[nodiscard]] JsonReader object(std::string_view key) const {
    return {value(key), concat(where_, ".", key)};
  }

  [[nodiscard]] std::int64_t integer(std::string_view key, std::int64_t least,
                                     std::int64_t most) const {
    return integer_in(key, value(key), least, most);
  }

  [[nodiscard]] std::string string(std::string_view key) const {
    const nlohmann::json& found = value(key);
    if (!found.is_string()) fail(key, "a string", found);
    return found.get<std::string>();
  }

  /// The position of the string in `known`.
  template <typename Range>
  [[nodiscard]] std::size_t one_of(std::string_view key, const Range& known) const {
    const std::string found = string(key);
    std::string names;
    std::size_t index = 0;
    for (const std::string_view name : known) {
      if (name == found) return index;
      names += concat(index++ == 0 ? "" : ", ", "\"", name, "\"");
    }
    fail(key, concat("one of ", names), value(key));
  }

  [[nodiscard]] const std::string& where() const noexcept { return where_; }

  /// The members of the object itself.
  [[nodiscard]] const nlohmann::json& members() const noexcept { return object_; }

  [[nodiscard]] bool has(std::string_view key) const { return object_.contains(key); }

  [[nodiscard]] bool boolean(std::string_view key) const {
    const nlohmann::json& found = value(key);
    if (!found.is_boolean()) fail(key, "true or false", found);
    return found.get<bool>();
  }

  [[nodiscard]] bool is_null(std::string_view key) const { return value(key).is_null(); }
  [[nodiscard]] bool absent(std::string_view key) const { return !has(key) || is_null(key); }

  [[nodiscard]] const nlohmann::json& array(std::string_view key) const {
    const nlohmann::json& found = value(key);
    if (!found.is_array()) fail(key, "an array", found);
    return found;
  }

  [[nodiscard]] std::int64_t integer_in(std::string_view key, const nlohmann::json& found,
                                        std::int64_t least, std::int64_t most) const {
    const std::string expected = concat("an integer in [", least, ", ", most, "]");
    const bool too_big = found.is_number_unsigned() &&
                         found.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX);
    if (!found.is_number_integer() || too_big) fail(key, expected, found);
    const auto number = found.get<std::int64_t>();
    if (number < least || number > most) fail(key, expected, found);
    return number;
  }

  [[noreturn]] void fail(std::string_view key, const std::string& expected,
                         const nlohmann::json& found) const {
    throw Error(ErrorCode::bad_package,
                printable(concat(where_, key.empty() ? "" : ".", key, " is ", describe(found),
                                 "; expected ", expected)));
  }

 private:
  // Nested values are not printed: a hostile file nests deeper than the stack.
  [[nodiscard]] static std::string describe(const nlohmann::json& found) {
    if (found.is_structured()) {
      return concat(found.is_array() ? "an array" : "an object", " of ", found.size());
    }
    const std::string text = found.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    return text.size() > 80 ? text.substr(0, 77) + "..." : text;
  }

  [[nodiscard]] const nlohmann::json& value(std::string_view key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) {
      throw Error(ErrorCode::bad_package,
                  printable(concat(where_, ": key '", key, "' is missing")));
    }
    return *found;
  }

  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace fastdllm
