// fastdllm-cli: generate, chat, info, check, bench, on the public API alone.
// Exit codes: 0 success; 1 failure, one line on stderr; 2 wrong usage; 130 interrupted by Ctrl-C.
#include <fastdllm/version.h>
#include <algorithm>
#include <new>
#include <string>
#include <vector>

#include "commands.hpp"
#include "console.hpp"

namespace fastdllm::cli {
namespace {

std::string overview(const std::vector<Command>& commands) {
  std::string text =
      "usage: fastdllm-cli COMMAND [ARGUMENT ...]\n\n"
      "Fast, exact decoding of masked diffusion language models.\n\ncommands:\n";
  for (const Command& command : commands) {
    std::string line = "  " + command.name;
    line.resize(14, ' ');
    text += line + command.help + "\n";
  }
  return text +
         "\nfastdllm-cli COMMAND --help lists a command's options; --version shows the version.\n"
         "ONNX Runtime's library is found through --onnxruntime-library, FASTDLLM_ONNXRUNTIME or "
         "the\nloader's search.\n";
}

int usage_error(const std::string& program, const std::string& usage, const std::string& message) {
  print_error(usage + program + ": error: " + message + "\n");
  return 2;
}

int run(const Command& command, const std::vector<std::string>& words) {
  try {
    if (!read_arguments(command, words)) {
      print(help_of(command));
      return 0;
    }
    return command.run();
  } catch (const UsageError& problem) {
    return usage_error("fastdllm-cli " + command.name, usage_of(command), problem.what());
  }
}

int run_any(std::vector<std::string> words) {
  const std::vector<Command> commands{generate_command(), chat_command(), info_command(),
                                      check_command(), bench_command()};
  const std::string known = "expected one of generate, chat, info, check, bench";
  if (words.empty()) {
    return usage_error("fastdllm-cli", overview(commands), "a command is needed; " + known);
  }
  const std::string name = words.front();
  words.erase(words.begin());
  if (name == "--help" || name == "-h") {
    print(overview(commands));
    return 0;
  }
  if (name == "--version") {
    print(std::string("fastdllm ") + version() + "\n");
    return 0;
  }
  const auto found = std::find_if(commands.begin(), commands.end(),
                                  [&](const Command& command) { return command.name == name; });
  if (found == commands.end()) {
    return usage_error("fastdllm-cli", "usage: fastdllm-cli COMMAND [ARGUMENT ...]\n",
                       "there is no command '" + name + "'; " + known);
  }
  return run(*found, words);
}

}  // namespace
}  // namespace fastdllm::cli

int main(int argc, char** argv) {
  namespace cli = fastdllm::cli;
  cli::occupy_standard_files();
  cli::install_signals();
  try {
    return cli::run_any({argv + std::min(argc, 1), argv + argc});
  } catch (const cli::Interrupted&) {
    return 130;
  } catch (const cli::BrokenPipe&) {
    return 1;
  } catch (const std::bad_alloc&) {
    cli::print_error("fastdllm-cli: error: there is not enough memory for this command\n");
    return 1;
  } catch (const std::exception& problem) {
    cli::print_error(std::string("fastdllm-cli: error: ") + problem.what() + "\n");
    return 1;
  }
}
