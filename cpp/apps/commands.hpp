// The commands of fastdllm-cli. Each is a table of its arguments and what runs it.
#pragma once

#include <fastdllm/engine.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "arguments.hpp"

namespace fastdllm::cli {

/// What every command that runs a package takes.
struct PackageOptions {
  std::filesystem::path package;
  SessionOptions session;
  EngineLimits limits;
  bool json = false;

  /// `Positional` and `OptionGroup` read into this object, which outlives their use.
  [[nodiscard]] Positional positional();
  [[nodiscard]] OptionGroup group();
};

/// {"refresh_passes": ...}
[[nodiscard]] nlohmann::ordered_json to_json(const GenerationStats& stats);
/// JSON has no infinities: the log of a probability 0 is null.
[[nodiscard]] nlohmann::ordered_json logs_to_json(const std::vector<double>& logprobs);
/// fastdllm.json as it stands, in its order, after read_package() found it sound. Errors: its own.
[[nodiscard]] nlohmann::ordered_json read_metadata(const std::filesystem::path& package);
/// Whether this library can chat with a package, and if not, why; of its `tokenizer` entry.
[[nodiscard]] std::string describe_chat_format(const nlohmann::ordered_json& tokenizer);
/// One object over several lines, or (indent -1) in one; ASCII, with a newline.
void print_json(const nlohmann::ordered_json& content, int indent = 1);
/// Rows in columns; the first row is the header, the first column left-aligned.
[[nodiscard]] std::string table(const std::vector<std::vector<std::string>>& rows);

[[nodiscard]] Command generate_command();
[[nodiscard]] Command chat_command();
[[nodiscard]] Command info_command();
[[nodiscard]] Command check_command();
[[nodiscard]] Command bench_command();

}  // namespace fastdllm::cli
