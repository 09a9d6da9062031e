// fastdllm-cli chat: a conversation, a line a turn, from a terminal or a pipe.
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
  std::optional<std::string> system;
  TextOptions text;
};

/// Asks for an answer to the conversation and adds it: also one that Ctrl-C ended, as it stands.
void answer(LLM& llm, std::vector<Message>& messages, const GenerationConfig& config,
            const Options& options) {
  Completion completion;
  if (options.package.json) {
    completion = wait_or_cancel(llm.submit_chat(messages, config, options.text));
    print_json(to_json(completion, {}, config), -1);
  } else {
    Printer printer;
    completion =
        wait_or_cancel(llm.submit_chat(messages, config, options.text, printer.callback()));
    printer.finish(completion);
  }
  messages.push_back({"assistant", completion.text});
  // If standard input is not a terminal, Ctrl-C ends the program.
  if (InterruptGuard::interrupted() && !reads_from_terminal()) throw Interrupted();
}

int chat(const Options& options) {
  const GenerationConfig config = options.generation.config();
  LLM llm(options.package.package, options.package.session, options.package.limits);
  std::vector<Message> messages;
  if (options.system) {
    messages.push_back({"system", require_utf8("--system", *options.system)});
    (void)llm.codec().render_chat(messages);  // the format may have no such role
  }
  const bool is_terminal = reads_from_terminal() && prints_to_terminal();
  if (is_terminal) {
    print("Ctrl-C ends an answer, at the prompt the program; Ctrl-D ends it too.\n");
  }
  int code = 0;
  while (true) {
    if (is_terminal) print("> ");
    const std::optional<std::string> line = read_line("the message");
    if (!line) break;
    if (line->empty()) continue;
    const std::size_t before = messages.size();
    try {
      messages.push_back({"user", require_utf8("the message", *line)});
      answer(llm, messages, config, options);
    } catch (const Error& problem) {  // such as a context that is full: the rest still stands
      print_error(std::string("fastdllm-cli: error: ") + problem.what() + "\n");
      messages.resize(before);
      code = 1;
    }
  }
  if (is_terminal) print("\n");
  return is_terminal ? 0 : code;
}

}  // namespace

Command chat_command() {
  const auto options = std::make_shared<Options>();
  OptionGroup group = options->package.group();
  group.options.push_back({"--system", "TEXT", "what the conversation begins with",
                           [options](std::string_view text) { options->system = text; }});
  group.options.push_back(
      {"--stop", "TEXT", "end every answer before it; may come again",
       [options](std::string_view text) { options->text.stop.emplace_back(text); }});
  return {"chat",
          "talk: each line of standard input is a turn",
          {options->package.positional()},
          {group, options->generation.options()},
          [options] { return chat(*options); }};
}

}  // namespace fastdllm::cli
