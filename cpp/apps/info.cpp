// fastdllm-cli info: facts of a package, or what this build can do.
#include <fastdllm/version.h>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "commands.hpp"
#include "console.hpp"

namespace fastdllm::cli {
namespace {

using nlohmann::ordered_json;

struct Options {
  std::optional<std::filesystem::path> package;
  bool json = false;
};

using Facts = std::vector<std::pair<std::string, std::string>>;

/// A package may come from anywhere, and a terminal obeys control characters: those as in JSON.
std::string printable(const std::string& text) {
  const auto is_plain = [](char c) { return c >= ' ' && c <= '~'; };
  if (std::all_of(text.begin(), text.end(), is_plain)) return text;
  return ordered_json(text).dump(-1, ' ', true, ordered_json::error_handler_t::replace);
}

void print_facts(Facts facts) {
  std::size_t width = 0;
  for (auto& [name, value] : facts) {
    name = printable(name);
    value = printable(value);
    width = std::max(width, name.size());
  }
  std::string text;
  for (const auto& [name, value] : facts) {
    text += name + std::string(width - name.size() + 2, ' ') + value + "\n";
  }
  print(text);
}

std::string as_text(const ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const auto& one : value) text.append(text.empty() ? "" : ", ").append(one.dump());
  return "[" + text + "]";
}

std::string megabytes(std::int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

/// Sets a fact where it stands, or adds it.
void set_fact(Facts& facts, const std::string& name, std::string value) {
  const auto found = std::find_if(facts.begin(), facts.end(),
                                  [&](const auto& fact) { return fact.first == name; });
  if (found != facts.end()) {
    found->second = std::move(value);
  } else {
    facts.emplace_back(name, std::move(value));
  }
}

/// Adds what the package recommends, its text and tokens with the files that they are from, and
/// the export's warnings, as `fastdllm info` does.
void add_summary(const ordered_json& metadata, Facts& facts) {
  const ordered_json nothing = ordered_json::object();
  const ordered_json decoding = metadata.value("decoding", nothing);
  for (const auto& [name, entry] : decoding.items()) {
    facts.emplace_back("recommended " + name,
                       as_text(entry["value"]) + " (" + as_text(entry["source"]) + ")");
  }
  const ordered_json tokenizer = metadata.value("tokenizer", ordered_json());
  const ordered_json sources = metadata.value("sources", nothing);
  const auto from = [&](const char* key, const std::string& value) {
    return sources.contains(key) ? value + " (" + as_text(sources[key]) + ")" : value;
  };
  const bool text = tokenizer.is_object() && !tokenizer.empty();
  const bool chat = text && !tokenizer.value("chat_template", ordered_json()).is_null();
  facts.emplace_back("tokenizer", text ? from("tokenizer", "yes") : "no: token ids only");
  facts.emplace_back("chat template", chat   ? from("chat_template", "yes")
                                      : text ? "no: a prompt is text as it stands"
                                             : "no");
  facts.emplace_back("chat format", describe_chat_format(tokenizer));
  for (const char* key : {"mask_token_id", "eos_token_ids", "bos_token_id", "pad_token_id"}) {
    const ordered_json value = metadata["model"].value(key, ordered_json());
    if (std::string(key) == "eos_token_ids" && value.empty()) {
      set_fact(facts, key, "none: an answer goes on to its last token");
    } else if (!value.is_null()) {
      set_fact(facts, key, from(key, as_text(value)));
    }
  }
  std::size_t number = 0;
  const ordered_json warnings = metadata.value("warnings", ordered_json::array());
  for (const auto& warning : warnings) {
    facts.emplace_back("warning " + std::to_string(++number), as_text(warning));
  }
}

int info_of_package(const Options& options) {
  ordered_json metadata = read_metadata(*options.package);
  std::int64_t bytes = 0;
  for (const auto& file : metadata["files"]) bytes += file["bytes"].get<std::int64_t>();
  metadata["bytes"] = bytes;
  if (options.json) {
    print_json(metadata);
    return 0;
  }
  Facts facts{{"family", as_text(metadata["family"])},
              {"precision", as_text(metadata["precision"]) + " (cache " +
                                as_text(metadata["graph"]["cache_type"]) + ")"},
              {"format", "version " + as_text(metadata["format_version"]) + ", opset " +
                             as_text(metadata["opset"])},
              {"exported by",
               "fastdllm " + as_text(metadata.value("fastdllm_version", ordered_json("unknown")))},
              {"size", megabytes(bytes)}};
  if (metadata["graph"].contains("score_bytes")) {
    facts.emplace_back("score_bytes", as_text(metadata["graph"]["score_bytes"]));
  }
  for (const auto& [name, value] : metadata["model"].items()) {
    facts.emplace_back(name, as_text(value));
  }
  add_summary(metadata, facts);
  print_facts(facts);
  return 0;
}

std::string joined(const auto& words) {
  std::string text;
  for (const auto& word : words) text.append(text.empty() ? "" : ", ").append(word);
  return text;
}

int info_of_build(const Options& options) {
  if (options.json) {
    print_json({{"version", version()},
                {"package_format", supported_format_version},
                {"precisions", precisions},
                {"backends", built_backends()}});
    return 0;
  }
  print_facts({{"fastdllm", version()},
               {"package format", "up to version " + std::to_string(supported_format_version)},
               {"precisions", joined(precisions)},
               {"backends", joined(built_backends())}});
  return 0;
}

}  // namespace

Command info_command() {
  const auto options = std::make_shared<Options>();
  const OptionGroup group{"options",
                          {{"--json", "", "print one JSON object",
                            [options](std::string_view) { options->json = true; }}}};
  return {
      "info",
      "show what a package is, or what this build can do",
      {{"PACKAGE", "a package folder; default: this build",
        [options](std::string_view text) { options->package = text; }, true}},
      {group},
      [options] { return options->package ? info_of_package(*options) : info_of_build(*options); }};
}

}  // namespace fastdllm::cli
