#include "config_options.hpp"

#include <algorithm>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace fastdllm::cli {
namespace {

using nlohmann::ordered_json;

bool is_list(const OptionInfo& option) {
  return option.type == OptionType::ids || option.type == OptionType::biases;
}

std::string metavar_of(const OptionInfo& option) {
  switch (option.type) {
    case OptionType::integer: return "N";
    case OptionType::number: return "X";
    case OptionType::flag: return "";
    case OptionType::text: return "NAME";
    case OptionType::path: return "PATH";
    case OptionType::ids: return "IDS";
    case OptionType::biases: return "BIASES";
    case OptionType::choice: break;
  }
  std::string choices = "{";
  for (const auto one : option.choices) {
    if (choices.size() > 1) choices += ',';
    choices += one;
  }
  choices += '}';
  return choices;
}

std::string help_of_option(const OptionInfo& option) {
  std::string help(option.help);
  if (option.type == OptionType::ids) help += ", such as 1,2";
  if (option.type == OptionType::biases) help += ", such as 12=-1.5,7=2";
  if (is_list(option)) help += "; may come again";
  const bool says_default = option.default_text != "none" && !option.default_text.empty() &&
                            option.default_text != "false";
  return says_default ? help + "; default " + option.default_text : help;
}

template <typename Item>
void append(std::vector<Item>& items, const std::vector<Item>& more) {
  items.insert(items.end(), more.begin(), more.end());
}

/// Items are added to those that came before; a token has the bias that it was given last.
void add_items(GenerationConfig& config, std::string_view name, std::string_view text) {
  GenerationConfig added;
  set_from_word(added, name, text);
  for (const auto& item : added.logit_bias) {
    std::erase_if(config.logit_bias, [&](const auto& old) { return old.first == item.first; });
    config.logit_bias.push_back(item);
  }
  append(config.banned_token_ids, added.banned_token_ids);
  if (added.stop_token_ids) {
    if (!config.stop_token_ids) config.stop_token_ids.emplace();
    append(*config.stop_token_ids, *added.stop_token_ids);
  }
}

}  // namespace

Option option_of(const OptionInfo& option, std::function<void(std::string_view)> take) {
  std::string name = "--" + std::string(option.name);
  std::replace(name.begin(), name.end(), '_', '-');
  // A flag that is set from the beginning takes false as well.
  const bool takes_value = option.type != OptionType::flag || option.default_text == "true";
  const std::string metavar = option.type == OptionType::flag ? "{true,false}" : metavar_of(option);
  return {name, takes_value ? metavar : "", help_of_option(option), std::move(take),
          is_list(option)};
}

OptionGroup ConfigOptions::options() {
  OptionGroup group{"options of the generation", {}};
  for (const OptionInfo& option : option_table()) {
    if (option.group != fastdllm::OptionGroup::generation) continue;
    const auto take = [this, name = option.name, list = is_list(option)](std::string_view text) {
      if (list) {
        add_items(config_, name, text);
      } else {
        set_from_word(config_, name, text);
      }
    };
    group.options.push_back(option_of(option, take));
  }
  return group;
}

GenerationConfig ConfigOptions::config() const {
  GenerationConfig config = with_default_rule(config_);
  validate(config);
  return config;
}

// "1,2" is [1, 2], "12=-1.5,7=2" is {"12": -1.5, "7": 2}.
ordered_json list_of(const OptionInfo& option, const std::string& text) {
  if (option.type == OptionType::ids) return ordered_json::parse("[" + text + "]");
  ordered_json biases = ordered_json::object();
  std::istringstream items(text);
  for (std::string item; std::getline(items, item, ',');) {
    const std::size_t equals = item.find('=');
    biases[item.substr(0, equals)] = ordered_json::parse(item.substr(equals + 1));
  }
  return biases;
}

ordered_json to_json(const GenerationConfig& config) {
  ordered_json fields;
  for (const OptionInfo& option : option_table()) {
    if (option.group != fastdllm::OptionGroup::generation) continue;
    const std::string text = get_option(config, option.name);
    ordered_json& value = fields[std::string(option.name)];
    if (option.type == OptionType::choice) {
      value = text;
    } else if (text == "none") {
      value = nullptr;
    } else {
      value = is_list(option) ? list_of(option, text) : ordered_json::parse(text);
    }
  }
  return fields;
}

}  // namespace fastdllm::cli
