#include "text/chat_format.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_config, printable(message));
}

std::optional<std::string> optional_string(const JsonReader& json, std::string_view key) {
  if (json.is_null(key)) return std::nullopt;
  return json.string(key);
}

// White space as Python's str.strip sees it, which Jinja's trim is.
constexpr std::array<std::string_view, 29> spaces{
    "\t",           "\n",           "\v",           "\f",           "\r",
    "\x1C",         "\x1D",         "\x1E",         "\x1F",         " ",
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
    "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
    "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
    "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

std::string_view trimmed(std::string_view text) {
  const auto at_start = [&](std::string_view space) { return text.starts_with(space); };
  const auto at_end = [&](std::string_view space) { return text.ends_with(space); };
  auto space = std::find_if(spaces.begin(), spaces.end(), at_start);
  while (space != spaces.end()) {
    text.remove_prefix(space->size());
    space = std::find_if(spaces.begin(), spaces.end(), at_start);
  }
  space = std::find_if(spaces.begin(), spaces.end(), at_end);
  while (space != spaces.end()) {
    text.remove_suffix(space->size());
    space = std::find_if(spaces.begin(), spaces.end(), at_end);
  }
  return text;
}

}  // namespace

ChatFormat::Turn::Turn(const JsonReader& json)
    : before(json.string("before")),
      after(json.string("after")),
      drop_through(optional_string(json, "drop_through")),
      trim(json.boolean("trim")) {
  for (const nlohmann::json& text : json.array("refused")) {
    if (!text.is_string()) json.fail("refused", "strings", text);
    refused.push_back(text.get<std::string>());
  }
}

std::string_view ChatFormat::Turn::shown(std::string_view content) const {
  if (drop_through) {
    const std::size_t found = content.rfind(*drop_through);
    if (found != std::string_view::npos) {
      content.remove_prefix(found + drop_through->size());
      content.remove_prefix(std::min(content.find_first_not_of('\n'), content.size()));
    }
  }
  return trim ? trimmed(content) : content;
}

ChatFormat::ChatFormat(const JsonReader& json)
    : begin_(json.string("begin")),
      generation_prompt_(json.string("generation_prompt")),
      last_role_(optional_string(json, "last_role")) {
  if (!json.is_null("first_system")) first_system_.emplace(json.object("first_system"));
  const JsonReader roles = json.object("roles");
  for (const auto& [role, turn] : roles.members().items()) {
    roles_.emplace(role, Turn(roles.object(role)));
  }
}

const ChatFormat::Turn& ChatFormat::turn_of(std::span<const Message> messages,
                                            std::size_t index) const {
  constexpr std::string_view system = "system";
  const Message& message = messages[index];
  const bool first = index == 0;
  if (first && message.role == system && first_system_) return *first_system_;
  const auto found = roles_.find(message.role);
  if (found != roles_.end() && !(first && message.role == system)) return found->second;
  std::string known = first && first_system_ ? " \"system\"" : "";
  for (const auto& [role, turn] : roles_) {
    if (!first || role != system) known += concat(known.empty() ? " \"" : ", \"", role, "\"");
  }
  reject(concat("messages[", index, "].role is \"", message.role,
                "\"; expected, by the package's chat format, one of", known));
}

std::string ChatFormat::render(std::span<const Message> messages) const {
  if (messages.empty()) reject("there are no messages; expected at least one");
  if (last_role_ && messages.back().role != *last_role_) {
    reject(concat("the last message's role is \"", messages.back().role,
                  "\"; expected, by the package's chat format, \"", *last_role_, "\""));
  }
  std::string text;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Turn& turn = turn_of(messages, i);
    const std::string& content = messages[i].content;
    for (const std::string& refused : turn.refused) {
      if (content.find(refused) == std::string::npos) continue;
      reject(concat("messages[", i, "].content holds '", refused,
                    "'; expected content without it: the chat template acts on it"));
    }
    if (i == 0 && !(first_system_ && &turn == &*first_system_)) text += begin_;
    text.append(turn.before).append(turn.shown(content)).append(turn.after);
  }
  return text + generation_prompt_;
}

}  // namespace fastdllm
