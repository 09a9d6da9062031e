// A command line: a table of options says what is read, and is the help.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace fastdllm::cli {

/// Wrong usage: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Option {
  std::string name;     ///< "--max-new-tokens"; --max_new_tokens is the same
  std::string metavar;  ///< "" = a flag
  std::string help;
  std::function<void(std::string_view)> take;  ///< a flag is given "true"
  bool items = false;  ///< more words that begin like a number belong to it: --banned-token-ids 1 2
};

struct Positional {
  std::string name;
  std::string help;
  std::function<void(std::string_view)> take;
  bool optional = false;
};

struct OptionGroup {
  std::string title;
  std::vector<Option> options;
};

/// A command, its arguments and what runs it once they are read.
struct Command {
  std::string name;
  std::string help;
  std::vector<Positional> positionals;
  std::vector<OptionGroup> groups;
  std::function<int()> run;
};

[[nodiscard]] std::string usage_of(const Command& command);
[[nodiscard]] std::string help_of(const Command& command);

/// Reads the words behind a command's name. False: --help was asked for. Errors: UsageError.
[[nodiscard]] bool read_arguments(const Command& command, const std::vector<std::string>& words);

/// Text as a number. Errors: UsageError naming the option.
[[nodiscard]] std::int64_t read_integer(std::string_view option, std::string_view text,
                                        std::int64_t least, std::int64_t most);

}  // namespace fastdllm::cli
