#include "arguments.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <fastdllm/options.hpp>
#include <string>

namespace fastdllm::cli {
namespace {

constexpr std::size_t help_column = 28;
constexpr std::size_t line_width = 100;

const Option* find(const Command& command, std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  for (const OptionGroup& group : command.groups) {
    for (const Option& option : group.options) {
      if (option.name == name) return &option;
    }
  }
  return nullptr;
}

/// The help of an option beside it, or below where the option is long; broken at spaces.
std::string entry(const std::string& left, std::string_view help) {
  std::string text = "  " + left;
  if (help.empty()) return text + "\n";
  std::string indent(help_column, ' ');
  if (text.size() + 2 > help_column) {
    text += "\n" + indent;
  } else {
    text.resize(help_column, ' ');
  }
  const std::size_t width = line_width - help_column;
  while (help.size() > width) {
    const std::size_t space = help.rfind(' ', width);
    if (space == std::string_view::npos) break;
    text.append(help.substr(0, space)).append("\n").append(indent);
    help.remove_prefix(space + 1);
  }
  return text.append(help) + "\n";
}

std::string left_of(const Option& option) {
  return option.metavar.empty() ? option.name : option.name + " " + option.metavar;
}

/// The words of a command line from left to right.
class Reader {
 public:
  Reader(const Command& command, const std::vector<std::string>& words)
      : command_(command), words_(words) {}

  bool read() {
    while (next_ < words_.size()) {
      const std::string& word = words_[next_++];
      if (!only_positionals_ && word == "--") {
        only_positionals_ = true;
      } else if (!only_positionals_ && (word == "-h" || word == "--help")) {
        return false;
      } else if (!only_positionals_ && word.size() > 1 && word[0] == '-') {
        read_option(word);
      } else {
        read_positional(word);
      }
    }
    for (std::size_t i = positionals_; i < command_.positionals.size(); ++i) {
      const Positional& missing = command_.positionals[i];
      if (!missing.optional) throw UsageError(missing.name + " is needed: " + missing.help);
    }
    return true;
  }

 private:
  void read_positional(const std::string& word) {
    if (positionals_ == command_.positionals.size()) {
      throw UsageError("'" + word + "' is one argument too many");
    }
    command_.positionals[positionals_++].take(word);
  }

  void read_option(const std::string& word) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const Option* option = find(command_, name);
    if (option == nullptr) throw UsageError("there is no option " + name + suggestion(name));
    const bool flag = option->metavar.empty();
    if (equals != std::string::npos) {
      if (flag) throw UsageError(option->name + " takes no value; found " + word);
      option->take(std::string_view(word).substr(equals + 1));
    } else if (flag) {
      option->take("true");
    } else if (option->items) {
      read_items(*option);
    } else if (!has_value()) {
      throw UsageError(option->name + " needs a value: " + left_of(*option) + ", or " +
                       option->name + "=" + option->metavar + " where it begins with --");
    } else {
      option->take(words_[next_++]);
    }
  }

  [[nodiscard]] std::string suggestion(const std::string& name) const {
    std::vector<std::string_view> names;
    for (const OptionGroup& group : command_.groups) {
      for (const Option& option : group.options) names.push_back(option.name);
    }
    const std::string_view near = nearest_name(name, names);
    return near.empty() ? "" : "; did you mean " + std::string(near) + "?";
  }

  // The first word may be anything, so that an error names it; a number is no other argument.
  void read_items(const Option& option) {
    option.take(has_value() ? words_[next_++] : "");
    while (next_ < words_.size() && words_[next_][0] >= '0' && words_[next_][0] <= '9') {
      option.take(words_[next_++]);
    }
  }

  [[nodiscard]] bool has_value() const {
    return next_ < words_.size() && !words_[next_].starts_with("--");
  }

  const Command& command_;
  const std::vector<std::string>& words_;
  std::size_t next_ = 0;
  std::size_t positionals_ = 0;
  bool only_positionals_ = false;
};

}  // namespace

std::string usage_of(const Command& command) {
  std::string text = "usage: fastdllm-cli " + command.name;
  for (const Positional& positional : command.positionals) {
    text += positional.optional ? " [" + positional.name + "]" : " " + positional.name;
  }
  return text + " [OPTION ...]\n";
}

std::string help_of(const Command& command) {
  std::string text = usage_of(command) + "\n" + command.help + "\n\narguments:\n";
  for (const Positional& positional : command.positionals) {
    text += entry(positional.name, positional.help);
  }
  for (const OptionGroup& group : command.groups) {
    text += "\n" + group.title + ":\n";
    for (const Option& option : group.options) text += entry(left_of(option), option.help);
  }
  return text;
}

bool read_arguments(const Command& command, const std::vector<std::string>& words) {
  return Reader(command, words).read();
}

std::int64_t read_integer(std::string_view option, std::string_view text, std::int64_t least,
                          std::int64_t most) {
  std::int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || value < least || value > most) {
    throw UsageError(std::string(option) + " is '" + std::string(text) +
                     "'; expected an integer in [" + std::to_string(least) + ", " +
                     std::to_string(most) + "]");
  }
  return value;
}

}  // namespace fastdllm::cli
