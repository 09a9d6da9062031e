// Options of the library's table on a command line and in JSON, by their names.
#pragma once

#include <fastdllm/error.hpp>
#include <fastdllm/options.hpp>
#include <functional>
#include <nlohmann/json.hpp>

#include "arguments.hpp"

namespace fastdllm::cli {

/// Keeps what a command line says about a generation.
class ConfigOptions {
 public:
  ConfigOptions() = default;
  ConfigOptions(const ConfigOptions&) = delete;
  ConfigOptions& operator=(const ConfigOptions&) = delete;

  /// An option per field; this object outlives their use.
  [[nodiscard]] OptionGroup options();
  /// What was read; threshold 0.9 unless it names a rule or a schedule. Errors: those of
  /// validate().
  [[nodiscard]] GenerationConfig config() const;

 private:
  GenerationConfig config_;
};

/// A row of the table as an option of a command, with its metavar and help.
[[nodiscard]] Option option_of(const OptionInfo& option,
                               std::function<void(std::string_view)> take);

/// set_option(), whose error is wrong usage here: text that means nothing. Ranges come later.
template <typename Struct>
void set_from_word(Struct& options, std::string_view name, std::string_view text) {
  try {
    set_option(options, name, text);
  } catch (const Error& problem) {
    throw UsageError(problem.what());
  }
}

/// All fields, as Python's GenerationConfig.to_dict() has them.
[[nodiscard]] nlohmann::ordered_json to_json(const GenerationConfig& config);

}  // namespace fastdllm::cli
