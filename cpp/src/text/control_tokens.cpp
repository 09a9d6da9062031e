#include "text/control_tokens.hpp"

#include <algorithm>
#include <set>

#include "text/utf8.hpp"

namespace fastdllm {
namespace {

// Characters for private use, the last ones first.
constexpr char32_t last_mark = 0x10FFFD;

std::set<char32_t> private_characters(std::span<const Message> messages) {
  std::set<char32_t> found;
  for (const Message& message : messages) {
    for (std::string_view rest :
         {std::string_view(message.role), std::string_view(message.content)}) {
      while (!rest.empty()) {
        const utf8::Character next = utf8::first(rest);
        if (next.code >= 0x100000) found.insert(next.code);
        rest.remove_prefix(next.length);
      }
    }
  }
  return found;
}

std::vector<AddedToken> select(const std::vector<AddedToken>& tokens,
                               std::span<const std::int32_t> ids,
                               std::span<const std::string> texts) {
  std::vector<AddedToken> selected;
  for (const AddedToken& token : tokens) {
    if (token.special || std::find(ids.begin(), ids.end(), token.id) != ids.end() ||
        std::find(texts.begin(), texts.end(), token.content) != texts.end()) {
      selected.push_back({.content = token.content, .id = token.id});
    }
  }
  return selected;
}

}  // namespace

ControlTokens::ControlTokens(const std::vector<AddedToken>& tokens,
                             std::span<const std::int32_t> ids, std::span<const std::string> texts)
    : finder_(select(tokens, ids, texts), Normalizer()) {}

std::vector<Message> ControlTokens::mark(std::span<const Message> messages, Marks& marks) const {
  std::vector<Message> marked(messages.begin(), messages.end());
  const std::set<char32_t> taken = private_characters(messages);
  std::map<std::int32_t, char32_t> mark_of;
  char32_t next = last_mark;
  std::vector<TextPart> parts;
  for (std::size_t i = 0; i < marked.size(); ++i) {
    parts.clear();
    finder_.split(messages[i].content, parts);
    std::string text;
    for (const TextPart& part : parts) {
      if (!part.token) {
        text += part.text;
        continue;
      }
      const auto [place, is_new] = mark_of.try_emplace(*part.token, next);
      if (is_new) {
        while (taken.count(next) > 0) --next;
        place->second = next--;
        marks.emplace(place->second, part.text);
      }
      utf8::append(text, place->second);
    }
    marked[i].content = std::move(text);
  }
  return marked;
}

std::string without_marks(std::string_view text, const Marks& marks) {
  std::string out;
  while (!text.empty()) {
    const utf8::Character next = utf8::first(text);
    const auto mark = next.valid ? marks.find(next.code) : marks.end();
    out += mark == marks.end() ? text.substr(0, next.length) : std::string_view(mark->second);
    text.remove_prefix(next.length);
  }
  return out;
}

}  // namespace fastdllm
