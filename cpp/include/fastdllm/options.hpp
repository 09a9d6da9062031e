// All options by name, with type, range and help text. Command lines, the server, the bindings and
// the documentation are made from this one table.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/backend.hpp"
#include "fastdllm/engine.hpp"
#include "fastdllm/export.h"
#include "fastdllm/generation.hpp"

namespace fastdllm {

/// The struct that has an option as its field.
enum class OptionGroup {
  generation,  ///< GenerationConfig
  session,     ///< SessionOptions
  engine,      ///< EngineLimits
};

enum class OptionType {
  integer,
  number,
  flag,    ///< "true" or "false"
  choice,  ///< one of `choices`
  text,
  path,
  ids,     ///< token ids: "1,2,3"
  biases,  ///< token ids and numbers: "12=-1.5,7=2"
};

[[nodiscard]] FASTDLLM_API std::string_view name_of(OptionGroup group) noexcept;
[[nodiscard]] FASTDLLM_API std::string_view name_of(OptionType type) noexcept;

/// One row of the table.
struct OptionInfo {
  OptionGroup group = OptionGroup::generation;
  std::string_view name{};
  OptionType type = OptionType::integer;
  bool optional = false;            ///< it may have no value; as text: "none"
  std::optional<double> minimum{};  ///< of the number, or of each number in a list
  std::optional<double> maximum{};
  bool minimum_excluded = false;
  bool maximum_excluded = false;
  std::string range{};  ///< the range as text: "at least 1", "in (0, 1]"; "" = any value
  std::vector<std::string_view> choices{};  ///< the names of a choice
  std::string default_text{};               ///< the default, as get_option() writes it
  std::string_view since{};                 ///< the first version with this option
  std::string_view help{};
  bool is_rule = false;  ///< an unmasking rule or schedule, see with_default_rule()
};

/// The rows of all fields of GenerationConfig, SessionOptions and EngineLimits, in their order.
[[nodiscard]] FASTDLLM_API std::vector<OptionInfo> option_table();

/// Set and get a field by its name, like the functions of the same name in generation.hpp.
FASTDLLM_API void set_option(SessionOptions& options, std::string_view name,
                             std::string_view value);
FASTDLLM_API void set_option(EngineLimits& limits, std::string_view name, std::string_view value);
[[nodiscard]] FASTDLLM_API std::string get_option(const SessionOptions& options,
                                                  std::string_view name);
[[nodiscard]] FASTDLLM_API std::string get_option(const EngineLimits& limits,
                                                  std::string_view name);

/// Check the ranges of all fields. Engine's constructor does so too. Errors: Error{bad_config} with
/// the option's name, what is allowed and what was found.
FASTDLLM_API void validate(const SessionOptions& options);
FASTDLLM_API void validate(const EngineLimits& limits);

/// The known name that is most similar to a misspelt one; "" when none is similar.
[[nodiscard]] FASTDLLM_API std::string_view nearest_name(std::string_view name,
                                                         std::span<const std::string_view> names);

}  // namespace fastdllm
