// The options of generations, sessions and engines by name: what command lines, services, bindings
// and documentation have. All of them come from one table.
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

/// Which struct an option is a field of.
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

/// What is known of an option.
struct OptionInfo {
  OptionGroup group = OptionGroup::generation;
  std::string_view name{};
  OptionType type = OptionType::integer;
  bool optional = false;            ///< "none" is a value of it
  std::optional<double> minimum{};  ///< of an integer or a number, and of a list's numbers
  std::optional<double> maximum{};
  bool minimum_excluded = false;
  bool maximum_excluded = false;
  std::string range{};  ///< the same in words: "at least 1", "in (0, 1]"; "" = any
  std::vector<std::string_view> choices{};
  std::string default_text{};  ///< as get_option() writes it
  std::string_view since{};    ///< the first version that has it
  std::string_view help{};
  bool is_rule = false;  ///< decides how many positions a pass commits, see with_default_rule()
};

/// All options: the fields of GenerationConfig, SessionOptions and EngineLimits, in their order.
[[nodiscard]] FASTDLLM_API std::vector<OptionInfo> option_table();

/// The same by name as set_option() and get_option() of generation.hpp, for the other two structs.
FASTDLLM_API void set_option(SessionOptions& options, std::string_view name,
                             std::string_view value);
FASTDLLM_API void set_option(EngineLimits& limits, std::string_view name, std::string_view value);
[[nodiscard]] FASTDLLM_API std::string get_option(const SessionOptions& options,
                                                  std::string_view name);
[[nodiscard]] FASTDLLM_API std::string get_option(const EngineLimits& limits,
                                                  std::string_view name);

/// Numbers in range. Errors: Error{bad_config} naming the option, what is allowed and what was
/// found. An engine checks its options when it is opened.
FASTDLLM_API void validate(const SessionOptions& options);
FASTDLLM_API void validate(const EngineLimits& limits);

/// The name that was probably meant by one that there is not; "" where none is near.
[[nodiscard]] FASTDLLM_API std::string_view nearest_name(std::string_view name,
                                                         std::span<const std::string_view> names);

}  // namespace fastdllm
