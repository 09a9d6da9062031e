// fastdllm-cli generate: answers prompts, of text or of token ids, or fills the gaps of a text.
#include <algorithm>
#include <memory>
#include <optional>

#include "answers.hpp"
#include "commands.hpp"
#include "config_options.hpp"
#include "console.hpp"

namespace fastdllm::cli {
namespace {

struct Options {
  PackageOptions package;
  ConfigOptions generation;
  std::vector<std::string> prompts;
  std::vector<std::vector<std::int32_t>> ids;
  std::optional<std::string> infill;
  TextOptions text;
  bool stream = false;
};

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_config, message);
}

/// Between ids stands one comma, or spaces, as in what is printed. Nothing is no id.
std::vector<std::int32_t> read_ids(std::string_view text) {
  std::vector<std::int32_t> ids;
  while (true) {
    const std::size_t end = std::min(text.find_first_of(", "), text.size());
    ids.push_back(
        static_cast<std::int32_t>(read_integer("--ids", text.substr(0, end), 0, INT32_MAX)));
    if (end == text.size()) return ids;
    text.remove_prefix(end + 1);
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  }
}

void require_that_they_fit(const Options& options) {
  if (options.infill &&
      (options.prompts.size() > 1 || !options.text.stop.empty() || options.stream)) {
    reject("--infill takes one --prompt at most, and neither --stop nor --stream");
  }
  if (!options.ids.empty() && (!options.prompts.empty() || options.infill ||
                               !options.text.stop.empty() || options.stream)) {
    reject("--ids takes neither --prompt nor --infill nor --stop nor --stream");
  }
  if (options.stream && options.prompts.size() > 1) {
    reject("--stream takes one --prompt; found " + std::to_string(options.prompts.size()));
  }
  if (std::count(options.prompts.begin(), options.prompts.end(), "-") > 1) {
    reject("--prompt - comes twice; expected it once, standard input ends once");
  }
  for (const std::string& stop : options.text.stop) {
    if (stop.empty()) reject("--stop is empty; expected text");
    (void)require_utf8("--stop", stop);
  }
}

/// Several answers in JSON are a line each.
int indent_for(std::size_t count) {
  return count == 1 ? 1 : -1;
}

int generate_ids(const Options& options, const GenerationConfig& config) {
  Engine engine(options.package.package, options.package.session, options.package.limits);
  const std::vector<Request> requests = submit_all(
      options.ids.size(), [&](std::size_t i) { return engine.submit(options.ids[i], config); });
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const GenerationResult result = wait_or_throw(requests[i]);
    if (options.package.json) {
      print_json(to_json(result, options.ids[i].size(), config), indent_for(requests.size()));
      continue;
    }
    std::string line;
    for (const std::int32_t id : result.token_ids) {
      if (!line.empty()) line += ' ';
      line += std::to_string(id);
    }
    print(line + "\n");
  }
  return 0;
}

int print_infill(const Options& options, LLM& llm, const std::vector<std::string>& prompts,
                 const GenerationConfig& config) {
  const std::string* prompt = prompts.empty() ? nullptr : &prompts.front();
  const Infilled answer =
      infill(llm, require_utf8("--infill", *options.infill), prompt, options.text.raw, config);
  if (options.package.json) {
    print_json(to_json(answer.completion, answer.filled, config));
  } else {
    print(answer.completion.text + "\n");
  }
  return 0;
}

int stream_answer(const Options& options, LLM& llm, const std::string& prompt,
                  const GenerationConfig& config) {
  Printer printer;
  const TextRequest request = llm.submit(prompt, config, options.text, printer.callback());
  printer.finish(wait_or_throw(request));
  return 0;
}

int print_answers(const Options& options, LLM& llm, const std::vector<std::string>& prompts,
                  const GenerationConfig& config) {
  const std::vector<TextRequest> requests = submit_all(
      prompts.size(), [&](std::size_t i) { return llm.submit(prompts[i], config, options.text); });
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Completion completion = wait_or_throw(requests[i]);
    if (options.package.json) {
      print_json(to_json(completion, {}, config), indent_for(requests.size()));
    } else {
      print((i > 0 ? "\n" : "") + completion.text + "\n");
    }
  }
  return 0;
}

int generate(const Options& options) {
  const GenerationConfig config = options.generation.config();
  require_that_they_fit(options);
  if (!options.ids.empty()) return generate_ids(options, config);

  LLM llm(options.package.package, options.package.session, options.package.limits);
  std::vector<std::string> prompts = options.prompts;
  if (prompts.empty() && !options.infill) prompts.emplace_back("-");
  for (std::string& prompt : prompts) {
    if (prompt == "-") prompt = read_input("the prompt");
    (void)require_utf8("the prompt", prompt);
  }
  if (options.infill) return print_infill(options, llm, prompts, config);
  const bool streams = !options.package.json && (options.stream || prints_to_terminal());
  if (streams && prompts.size() == 1) return stream_answer(options, llm, prompts[0], config);
  return print_answers(options, llm, prompts, config);
}

}  // namespace

Command generate_command() {
  // Shared by the functions of the table, which read into it and run on it.
  const auto options = std::make_shared<Options>();
  OptionGroup group = options->package.group();
  const auto add = [&](const char* name, const char* metavar, const char* help,
                       std::function<void(std::string_view)> take) {
    group.options.push_back({name, metavar, help, std::move(take)});
  };
  add("--prompt", "TEXT",
      "the question; - (the default) reads standard input; may come again: answered together, in "
      "order, with --json a line each",
      [options](std::string_view text) { options->prompts.emplace_back(text); });
  add("--raw", "", "take the prompt as it stands, without chat format",
      [options](std::string_view) { options->text.raw = true; });
  add("--stream", "", "print text as it becomes final (default on a terminal)",
      [options](std::string_view) { options->stream = true; });
  add("--stop", "TEXT", "end the answer before it; may come again",
      [options](std::string_view text) { options->text.stop.emplace_back(text); });
  add("--infill", "TEXT",
      "fill the gaps of a text: {4} is one of 4 tokens; --prompt stands before it, if given",
      [options](std::string_view text) { options->infill = text; });
  add("--ids", "IDS", "instead of text, token ids such as 1,2,3; prints token ids; may come again",
      [options](std::string_view text) { options->ids.push_back(read_ids(text)); });
  return {"generate",
          "answer prompts",
          {options->package.positional()},
          {group, options->generation.options()},
          [options] { return generate(*options); }};
}

}  // namespace fastdllm::cli
