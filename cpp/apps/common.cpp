#include <algorithm>
#include <cmath>
#include <fstream>

#include "commands.hpp"
#include "config_options.hpp"
#include "console.hpp"

namespace fastdllm::cli {

using nlohmann::ordered_json;

Positional PackageOptions::positional() {
  return {"PACKAGE", "a package folder", [this](std::string_view text) { package = text; }};
}

OptionGroup PackageOptions::group() {
  OptionGroup group{"options", {}};
  const auto add = [&](const OptionInfo& option, auto& target) {
    group.options.push_back(option_of(option, [name = option.name, &target](std::string_view text) {
      set_from_word(target, name, text);
      try {
        validate(target);
      } catch (const Error& problem) {
        throw UsageError(problem.what());
      }
    }));
  };
  for (const OptionInfo& option : option_table()) {
    if (option.group == fastdllm::OptionGroup::session) add(option, session);
    if (option.group == fastdllm::OptionGroup::engine) add(option, limits);
  }
  group.options.push_back({"--json", "", "print JSON", [this](std::string_view) { json = true; }});
  return group;
}

// An ordered_json takes quadratic time for many fields, so a file of very many is refused.
ordered_json read_metadata(const std::filesystem::path& package) {
  constexpr std::size_t max_fields = 10'000;
  (void)read_package(package);
  const std::filesystem::path path = package / "fastdllm.json";
  std::ifstream file(path, std::ios::binary);
  std::size_t fields = 0;
  const auto count = [&](int, ordered_json::parse_event_t event, const ordered_json&) {
    using Event = ordered_json::parse_event_t;
    const bool more =
        event == Event::key || event == Event::object_start || event == Event::array_start;
    if (more && ++fields > max_fields) {
      throw Error(ErrorCode::bad_package,
                  path.string() + " has more than " + std::to_string(max_fields) + " fields");
    }
    return true;
  };
  ordered_json metadata = ordered_json::parse(file, count, false);
  if (!metadata.is_object()) {
    throw Error(ErrorCode::bad_package, path.string() + ": is no longer readable as JSON");
  }
  return metadata;
}

std::string describe_chat_format(const ordered_json& tokenizer) {
  const auto entry = [&](const char* key) {
    return tokenizer.is_object() ? tokenizer.value(key, ordered_json()) : ordered_json();
  };
  if (entry("chat_template").is_null()) return "no: there is no chat template";
  if (!entry("chat_format").is_null()) return "yes";
  if (!tokenizer.contains("chat_format")) {
    return "no: exported before there was one, export the package again";
  }
  const ordered_json reason = entry("chat_format_reason");
  return "no: " + (reason.is_string() ? reason.get<std::string>()
                                      : "the chat template is more than a format");
}

ordered_json to_json(const GenerationStats& stats) {
  return {{"refresh_passes", stats.refresh_passes},
          {"step_passes", stats.step_passes},
          {"reused_rows", stats.reused_rows},
          {"rows_computed", stats.rows_computed},
          {"logit_rows_computed", stats.logit_rows_computed},
          {"graph_seconds", stats.graph_seconds},
          {"total_seconds", stats.total_seconds},
          {"cache_bytes", stats.cache_bytes}};
}

ordered_json logs_to_json(const std::vector<double>& logprobs) {
  ordered_json logs = ordered_json::array();
  for (const double log : logprobs) {
    logs.push_back(std::isfinite(log) ? ordered_json(log) : ordered_json(nullptr));
  }
  return logs;
}

void print_json(const ordered_json& content, int indent) {
  // A path, such as one in an error, may be no UTF-8.
  print(content.dump(indent, ' ', true, ordered_json::error_handler_t::replace) + "\n");
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - row[i].size(), ' ');
      line += i == 0 ? row[i] + space : "  " + space + row[i];
    }
    text += line + "\n";
    if (&row == &rows.front()) text += std::string(line.size(), '-') + "\n";
  }
  return text;
}

}  // namespace fastdllm::cli
