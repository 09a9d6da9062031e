// fastdllm-cli bench: naive, prefix, dual, and dual + threshold on one prompt, in one run.
#include <cstdio>
#include <memory>
#include <optional>

#include "answers.hpp"
#include "commands.hpp"
#include "config_options.hpp"
#include "console.hpp"

namespace fastdllm::cli {
namespace {

using nlohmann::ordered_json;

struct Options {
  PackageOptions package;
  std::optional<std::string> prompt;
  GenerationConfig config{.max_new_tokens = 64, .threshold = 0.9, .ignore_eos = true};
  std::int64_t repeat = 3;
};

struct Mode {
  std::string name;
  GenerationConfig config;
};

/// Sums over all repeats of a mode. Seconds are wall-clock. Every new position counts: end-of-text
/// stops nothing here, so that modes compare.
struct Measurement {
  std::string name;
  std::int64_t tokens = 0;
  std::int64_t passes = 0;
  double seconds = 0.0;
  double graph_seconds = 0.0;

  [[nodiscard]] double tokens_per_pass() const {
    return static_cast<double>(tokens) / static_cast<double>(passes);
  }
  [[nodiscard]] double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
  [[nodiscard]] double outside_microseconds() const {
    return 1e6 * (seconds - graph_seconds) / static_cast<double>(passes);
  }
};

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::vector<Mode> modes_of(const GenerationConfig& config) {
  std::vector<Mode> modes{{"naive", config},
                          {"prefix", config},
                          {"dual", config},
                          {"dual + threshold " + get_option(config, "threshold"), config}};
  modes[0].config.cache = CacheMode::none;
  modes[1].config.cache = CacheMode::prefix;
  modes[2].config.cache = modes[3].config.cache = CacheMode::dual;
  for (std::size_t i = 0; i < 3; ++i) modes[i].config.threshold.reset();
  return modes;
}

Measurement measure(Engine& engine, const std::vector<std::int32_t>& prompt, const Mode& mode,
                    std::int64_t repeat) {
  (void)wait_or_throw(engine.submit(prompt, mode.config));  // warm up
  Measurement sums{.name = mode.name};
  for (std::int64_t i = 0; i < repeat; ++i) {
    const GenerationResult result = wait_or_throw(engine.submit(prompt, mode.config));
    sums.tokens += static_cast<std::int64_t>(result.token_ids.size());
    sums.passes += result.num_passes;
    sums.seconds += result.stats.total_seconds;
    sums.graph_seconds += result.stats.graph_seconds;
  }
  return sums;
}

/// Sixteen ids, whatever they mean; the mask token is none of them.
std::vector<std::int32_t> default_prompt(const PackageInfo& package) {
  std::vector<std::int32_t> ids;
  for (std::int32_t id = 0; ids.size() < 16 && id < package.vocab_size; ++id) {
    if (id != package.mask_token_id) ids.push_back(id);
  }
  return ids;
}

ordered_json to_json(const Measurement& sums) {
  return {{"name", sums.name},
          {"num_tokens", sums.tokens},
          {"num_passes", sums.passes},
          {"seconds", sums.seconds},
          {"graph_seconds", sums.graph_seconds},
          {"tokens_per_pass", sums.tokens_per_pass()},
          {"tokens_per_second", sums.tokens_per_second()},
          {"outside_microseconds", sums.outside_microseconds()}};
}

void print_table(const Engine& engine, const Options& options,
                 const std::vector<Measurement>& results) {
  std::vector<std::vector<std::string>> rows{
      {"mode", "passes", "tokens/pass", "tokens/s", "speed-up", "ms/pass", "outside us/pass"}};
  for (const Measurement& sums : results) {
    const double speed_up = sums.tokens_per_second() / results.front().tokens_per_second();
    rows.push_back({sums.name, std::to_string(sums.passes / options.repeat),
                    fixed(sums.tokens_per_pass(), 1), fixed(sums.tokens_per_second(), 0),
                    fixed(speed_up, 1) + "x",
                    fixed(1e3 * sums.seconds / static_cast<double>(sums.passes), 2),
                    fixed(sums.outside_microseconds(), 0)});
  }
  const std::int64_t block =
      options.config.block_length.value_or(engine.package().block_length.value_or(32));
  print(engine.backend() + ", " + std::to_string(options.config.max_new_tokens) +
        " new tokens in blocks of " + std::to_string(block) + "\n" + table(rows));
}

int bench(Engine& engine, const std::vector<std::int32_t>& prompt, const Options& options) {
  const bool shows_progress = errors_go_to_terminal();
  std::vector<Measurement> results;
  for (const Mode& mode : modes_of(options.config)) {
    if (shows_progress) print_error("\rmeasuring " + mode.name + std::string(20, ' '));
    results.push_back(measure(engine, prompt, mode, options.repeat));
  }
  if (shows_progress) print_error("\r" + std::string(50, ' ') + "\r");
  if (!options.package.json) {
    print_table(engine, options, results);
    return 0;
  }
  ordered_json modes = ordered_json::array();
  for (const Measurement& sums : results) modes.push_back(to_json(sums));
  print_json({{"backend", engine.backend()}, {"repeat", options.repeat}, {"modes", modes}});
  return 0;
}

int run(const Options& options) {
  validate(options.config);
  if (options.prompt) {
    LLM llm(options.package.package, options.package.session, options.package.limits);
    return bench(llm.engine(), llm.encode(require_utf8("the prompt", *options.prompt)), options);
  }
  Engine engine(options.package.package, options.package.session, options.package.limits);
  return bench(engine, default_prompt(engine.package()), options);
}

}  // namespace

Command bench_command() {
  const auto options = std::make_shared<Options>();
  OptionGroup group = options->package.group();
  const auto add = [&](const char* name, const char* metavar, const char* help,
                       std::function<void(std::string_view)> take) {
    group.options.push_back({name, metavar, help, std::move(take)});
  };
  const auto config_option = [options](const char* name) {
    return [options, name](std::string_view text) { set_from_word(options->config, name, text); };
  };
  add("--prompt", "TEXT", "the question; default: 16 token ids",
      [options](std::string_view text) { options->prompt = text; });
  add("--max-new-tokens", "N", "default 64", config_option("max_new_tokens"));
  add("--block-length", "N", "default: the package's, or 32", config_option("block_length"));
  add("--threshold", "X", "of the last mode; default 0.9", config_option("threshold"));
  add("--repeat", "N", "default 3", [options](std::string_view text) {
    options->repeat = read_integer("--repeat", text, 1, 1000000);
  });
  return {"bench",
          "compare naive, prefix, dual, dual + threshold",
          {options->package.positional()},
          {group},
          [options] { return run(*options); }};
}

}  // namespace fastdllm::cli
