// GenerationConfig on a command line and in JSON: its fields by their names.
#pragma once

#include <fastdllm/generation.hpp>
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

/// set_option(), whose error is wrong usage here: text that means nothing. Ranges come later.
void set_from_word(GenerationConfig& config, std::string_view name, std::string_view text);

/// All fields, as Python's GenerationConfig.to_dict() has them.
[[nodiscard]] nlohmann::ordered_json to_json(const GenerationConfig& config);

}  // namespace fastdllm::cli
