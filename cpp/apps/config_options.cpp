#include "config_options.hpp"

#include <algorithm>
#include <array>
#include <fastdllm/error.hpp>
#include <string>
#include <vector>

namespace fastdllm::cli {
namespace {

using nlohmann::ordered_json;

/// How a field is shown. The rest of it is in the library's own table.
struct Shown {
  std::string_view name;
  std::string_view metavar;
  std::string_view help;
};

constexpr std::string_view integer = "N";
constexpr std::string_view number = "X";
constexpr std::string_view ids = "IDS";
constexpr std::string_view biases = "BIASES";
constexpr std::string_view flag;
// Everything else is one of the names that it lists.

constexpr std::array shown{
    Shown{"max_new_tokens", integer, "positions to decode"},
    Shown{"block_length", integer, "positions per block; default: the package's, or 32"},
    Shown{"sub_block_length", integer,
          "positions of a block that are decoded together; default: the package's, or the block"},
    Shown{"steps", integer, "passes over the whole generation; default: one token per pass"},
    Shown{"steps_per_block", integer, "instead of steps"},
    Shown{"eps", number, "the schedule follows time steps from 1 down to this"},
    Shown{"threshold", number,
          "commit every position at least this confident; default 0.9 unless a schedule or another "
          "rule is given"},
    Shown{"threshold_decay", number, "how much of it is gone when the block is filled"},
    Shown{"factor", number, "the factor rule of Fast-dLLM"},
    Shown{"frechet", number, "the Frechet profile with this margin"},
    Shown{"entropy_bound", number, "commit while the entropies sum up to at most this (nats)"},
    Shown{"cache", "{auto,none,prefix,dual}", "which K/V rows a pass reuses"},
    Shown{"suffix_window", integer, "mask tokens behind the block that a pass attends to"},
    Shown{"refresh_interval", integer, "passes from refresh to refresh inside a block"},
    Shown{"deferred_window", integer, "no fixed blocks: a window behind the left-most mask"},
    Shown{"refresh_tokens", integer, "committed tokens from refresh to refresh"},
    Shown{"remasking", "{low_confidence,random,margin,entropy,sequential,origin}",
          "what ranks positions"},
    Shown{"temperature", number, "of sampling; 0 = the best token"},
    Shown{"top_p", number, "sample from the smallest set of this probability"},
    Shown{"top_k", integer, "sample from the k best tokens; 0 = all"},
    Shown{"min_p", number, "sample from tokens at least this times as probable as the best"},
    Shown{"logit_bias", biases, "added to the logits, such as 12=-1.5,7=2; may come again"},
    Shown{"banned_token_ids", ids, "never proposed, such as 1,2; may come again"},
    Shown{"alg_temp", number, "temperature of the choice among positions"},
    Shown{"cfg_scale", number, "classifier-free guidance; 0 = off"},
    Shown{"seed", integer, "the same seed gives the same text"},
    Shown{"editing_threshold", number, "overwrite a committed token when another is surer"},
    Shown{"max_post_steps", integer, "passes that only edit, at most"},
    Shown{"stop_token_ids", ids, "default: the package's end-of-text ids; may come again"},
    Shown{"stop_at", "{token,block}", "where an answer that holds a stop token ends"},
    Shown{"ignore_eos", flag, "run every block instead of stopping at the end-of-text token"},
};

bool is_list(const Shown& field) {
  return field.metavar == ids || field.metavar == biases;
}

std::string help_of_field(const Shown& field) {
  std::string help(field.help);
  const std::string standard = get_option({}, field.name);
  const bool has_default = field.metavar != flag && standard != "none" && !standard.empty();
  return has_default ? help + "; default " + standard : help;
}

template <typename Item>
void append(std::vector<Item>& items, const std::vector<Item>& more) {
  items.insert(items.end(), more.begin(), more.end());
}

/// Items are added to those that came before; a token has the bias that it was given last.
void add_items(GenerationConfig& config, const Shown& field, std::string_view text) {
  GenerationConfig added;
  set_from_word(added, field.name, text);
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

void set_from_word(GenerationConfig& config, std::string_view name, std::string_view text) {
  try {
    set_option(config, name, text);
  } catch (const Error& problem) {
    throw UsageError(problem.what());
  }
}

OptionGroup ConfigOptions::options() {
  OptionGroup group{"options of the generation", {}};
  for (const Shown& field : shown) {
    std::string name = "--" + std::string(field.name);
    std::replace(name.begin(), name.end(), '_', '-');
    const auto take = [this, field](std::string_view text) {
      if (is_list(field)) {
        add_items(config_, field, text);
      } else {
        set_from_word(config_, field.name, text);
      }
    };
    group.options.push_back(
        {name, std::string(field.metavar), help_of_field(field), take, is_list(field)});
  }
  return group;
}

GenerationConfig ConfigOptions::config() const {
  GenerationConfig config = with_default_rule(config_);
  validate(config);
  return config;
}

ordered_json to_json(const GenerationConfig& config) {
  ordered_json fields;
  for (const Shown& field : shown) {
    const std::string text = get_option(config, field.name);
    ordered_json& value = fields[std::string(field.name)];
    if (field.metavar == biases) {
      value = ordered_json::object();
      for (const auto& [token, bias] : config.logit_bias) value[std::to_string(token)] = bias;
    } else if (field.name == "banned_token_ids") {
      value = config.banned_token_ids;
    } else if (field.name == "stop_token_ids") {
      if (config.stop_token_ids) value = *config.stop_token_ids;
    } else if (field.metavar.starts_with('{')) {
      value = text;
    } else if (text != "none") {
      value = ordered_json::parse(text);
    }
  }
  return fields;
}

}  // namespace fastdllm::cli
