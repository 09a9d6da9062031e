// fastdllm-cli check: checks a package on the machine where it will run.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>

#include "answers.hpp"
#include "commands.hpp"
#include "console.hpp"

namespace fastdllm::cli {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorCode::bad_package, message);
}

/// Prints checks as they come, in text, or all of them at the end, in JSON.
class Report {
 public:
  explicit Report(bool in_json) : in_json_(in_json) {}

  void add(const FileCheck& check) {
    checks_.push_back(check);
    if (!in_json_) {
      print((check.passed ? "ok    " : "FAIL  ") + check.name + ": " + check.detail + "\n");
    }
  }
  /// What goes wrong in a check is its result.
  void run(const std::string& name, const std::function<std::string()>& check) {
    try {
      add({name, true, check()});
    } catch (const std::runtime_error& problem) {
      add({name, false, problem.what()});
    } catch (const std::exception& problem) {  // of JSON, or an index that is out of range
      add({name, false, std::string("probes.json: ") + problem.what()});
    }
  }
  [[nodiscard]] bool sound() const {
    return std::all_of(checks_.begin(), checks_.end(), [](const auto& c) { return c.passed; });
  }
  /// Returns the exit code.
  [[nodiscard]] int finish(const std::filesystem::path& package) const {
    std::string failed;
    ordered_json all = ordered_json::array();
    for (const FileCheck& check : checks_) {
      all.push_back({{"name", check.name}, {"passed", check.passed}, {"detail", check.detail}});
      if (!check.passed) failed += (failed.empty() ? "" : ", ") + check.name;
    }
    if (in_json_) print_json(all);
    if (failed.empty()) return 0;
    print_error("fastdllm-cli: error: " + package.string() + ": failed: " + failed + "\n");
    return 1;
  }

 private:
  bool in_json_;
  std::vector<FileCheck> checks_;
};

json read_probes(const std::filesystem::path& package) {
  const std::filesystem::path path = package / "probes.json";
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (file.is_open()) file.peek();
  if (!file.is_open() || file.bad()) {
    const std::error_code problem(errno == 0 ? EIO : errno, std::generic_category());
    fail(path.string() + ": cannot be read: " + problem.message());
  }
  json probes = json::parse(file, nullptr, false);
  if (!probes.is_object()) fail(path.string() + ": is no JSON object");
  return probes;
}

std::string short_number(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// The largest difference between a probe and what the graph says, relative to the larger logits.
double difference(Engine& engine, const json& probe) {
  const auto position = probe.at("position").get<std::int32_t>();
  const auto ids = probe.at("input_ids").get<std::vector<std::int32_t>>();
  const std::vector<float> logits = engine.logits(ids, std::span(&position, 1));
  const auto expected = probe.at("logits").get<std::vector<double>>();
  const auto vocab_ids = probe.at("vocab_ids").get<std::vector<std::size_t>>();
  double scale = 1.0;
  double worst = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    scale = std::max(scale, std::abs(expected[i]));
    const double off = std::abs(static_cast<double>(logits.at(vocab_ids.at(i))) - expected[i]);
    if (!(off <= worst)) worst = off;  // a NaN stays
  }
  return worst / scale;
}

std::string check_graph(Engine& engine, const json& probes) {
  const json& graph = probes.at("graph");
  if (graph.empty()) {
    const std::int32_t mask = engine.package().mask_token_id;
    const std::int32_t position = 0;
    for (const float logit : engine.logits(std::span(&mask, 1), std::span(&position, 1))) {
      if (!std::isfinite(logit)) fail("the logits of a mask token hold NaN or infinity");
    }
    return engine.backend() +
           ": loads and runs; NOTHING COMPARED, the package was exported without loading its model";
  }
  const auto tolerance = probes.at("tolerance").get<double>();
  double worst = 0.0;
  for (const json& probe : graph) {
    const double off = difference(engine, probe);
    if (!(off <= worst)) worst = off;
  }
  if (!(worst <= tolerance)) {
    fail("logits differ from the stored probes by " + short_number(worst, "%.3g") + "; allowed " +
         short_number(tolerance, "%g"));
  }
  return engine.backend() + ": logits within " + short_number(worst, "%.1e") + " of " +
         std::to_string(graph.size()) + " probes";
}

/// A value of a config in JSON as set_option() reads it.
std::string text_of(const json& value) {
  if (value.is_null()) return "none";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string check_decode(Engine& engine, const json& probes) {
  const json probe = probes.value("decode", json());
  if (probe.is_null()) return "NOTHING COMPARED: no stored decode in this package";
  GenerationConfig config;
  for (const auto& [name, value] : probe.at("config").items()) {
    set_option(config, name, text_of(value));
  }
  const auto prompt = probe.at("prompt").get<std::vector<std::int32_t>>();
  const auto expected = probe.at("token_ids").get<std::vector<std::int32_t>>();
  const std::vector<std::int32_t> found = engine.generate(prompt, config).token_ids;
  std::size_t same = 0;
  for (std::size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
    same += found[i] == expected[i] ? 1 : 0;
  }
  // Other kernels round differently: that decides nothing in float32, but may where less is kept.
  const std::string& precision = engine.package().precision;
  const bool exact = precision == "fp32" || precision == "bf16";
  const std::string counted = std::to_string(same) + " of " + std::to_string(expected.size());
  if (found.size() != expected.size() || (exact ? same : 2 * same) < expected.size()) {
    fail(counted + " decoded tokens are the stored ones; found " + json(found).dump() +
         ", expected " + json(expected).dump());
  }
  return counted + " tokens of a short decode are the stored ones";
}

std::string check_text(const std::filesystem::path& package, const json& probes) {
  const ordered_json tokenizer = read_metadata(package).value("tokenizer", ordered_json());
  if (tokenizer.is_null()) return "no tokenizer in this package";
  const std::vector<std::string> differences = fastdllm::check_text(package);
  if (!differences.empty()) fail(differences.front());
  return std::to_string(probes.value("tokenizer", json::array()).size()) + " tokenizer probes, " +
         std::to_string(probes.value("chat", json::array()).size()) +
         " chat probes; chat format for C++: " + describe_chat_format(tokenizer);
}

int check(const PackageOptions& options) {
  Report report(options.json);
  std::vector<FileCheck> files;
  json probes;
  report.run("schema", [&] {
    const PackageInfo info = read_package(options.package);
    files = check_files(options.package);
    probes = read_probes(options.package);
    return "format " + std::to_string(info.format_version) + ", " + info.family + ", " +
           info.precision + ", opset " + std::to_string(info.opset);
  });
  for (const FileCheck& file : files) report.add(file);
  if (report.sound()) {
    std::optional<Engine> engine;  // loaded once, within the first check that needs it
    report.run("graph", [&] {
      engine.emplace(options.package, options.session, options.limits);
      return check_graph(*engine, probes);
    });
    if (engine) report.run("decode", [&] { return check_decode(*engine, probes); });
    report.run("text", [&] { return check_text(options.package, probes); });
  }
  return report.finish(options.package);
}

}  // namespace

Command check_command() {
  const auto options = std::make_shared<PackageOptions>();
  return {"check",
          "check schema, checksums, graph and tokenizer",
          {options->positional()},
          {options->group()},
          [options] { return check(*options); }};
}

}  // namespace fastdllm::cli
