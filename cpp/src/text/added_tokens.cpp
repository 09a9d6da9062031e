#include "text/added_tokens.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <unordered_map>

#include "text/utf8.hpp"

namespace fastdllm {
namespace {

// Longer ones are refused: a text that repeats the beginning of a token is compared with it again
// at each character.
constexpr std::size_t longest_added_token = 1024;

bool is_space(char32_t code) {
  return (code >= 9 && code <= 13) || code == ' ' || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

// Unicode's word characters: letters, marks, digits, connectors, joiners, alphabetic symbols.
bool is_word(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: break;
  }
  return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9) ||
         (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
         (code >= 0x1F170 && code <= 0x1F189);
}

// The last character of a text that is not empty.
std::string_view last_character(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
  return text.substr(at);
}

bool begins_with_word(std::string_view text) {
  return !text.empty() && is_word(utf8::first(text).code);
}
bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(utf8::first(last_character(text)).code);
}

std::size_t spaces_at_begin(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const utf8::Character next = utf8::first(text.substr(at));
    if (!is_space(next.code)) break;
    at += next.length;
  }
  return at;
}

// Where the white space at the end begins, not looking before `least`.
std::size_t begin_of_spaces_at_end(std::string_view text, std::size_t least) {
  while (text.size() > least) {
    const std::string_view last = last_character(text);
    if (!is_space(utf8::first(last).code)) break;
    text.remove_suffix(last.size());
  }
  return text.size();
}

AddedToken read_token(const JsonReader& entry) {
  AddedToken token{.content = entry.string("content"),
                   .id = static_cast<std::int32_t>(entry.integer("id", 0, largest_token_id)),
                   .special = entry.boolean("special"),
                   .single_word = entry.boolean("single_word"),
                   .lstrip = entry.boolean("lstrip"),
                   .rstrip = entry.boolean("rstrip"),
                   .normalized = entry.boolean("normalized")};
  if (token.content.empty() || token.content.size() > longest_added_token) {
    entry.fail("content", concat("a text of 1 to ", longest_added_token, " bytes"),
               entry.members().at("content"));
  }
  return token;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens,
                                   const Normalizer& normalizer) {
  for (const AddedToken& token : tokens) {
    entries_.push_back({token.normalized ? normalizer.apply(token.content) : token.content, token});
  }
  const auto before = [](const Entry& a, const Entry& b) { return a.text < b.text; };
  std::stable_sort(entries_.begin(), entries_.end(), before);
  const auto same = [](const Entry& a, const Entry& b) { return a.text == b.text; };
  entries_.erase(std::unique(entries_.begin(), entries_.end(), same), entries_.end());
  for (const Entry& entry : entries_) ++begin_[static_cast<unsigned char>(entry.text[0]) + 1U];
  for (std::size_t byte = 1; byte < begin_.size(); ++byte) begin_[byte] += begin_[byte - 1];
}

// Sorted texts that begin alike lie side by side: each byte of the text narrows their range.
const AddedTokenFinder::Entry* AddedTokenFinder::longest(std::string_view text) const {
  const auto byte = static_cast<unsigned char>(text[0]);
  auto low = entries_.begin() + static_cast<std::ptrdiff_t>(begin_[byte]);
  auto high = entries_.begin() + static_cast<std::ptrdiff_t>(begin_[byte + 1U]);
  const Entry* found = nullptr;
  for (std::size_t length = 1; low != high; ++length) {
    if (low->text.size() == length) found = &*low++;
    if (length == text.size()) break;
    const auto next = static_cast<unsigned char>(text[length]);
    const auto at = [length](const Entry& entry) {
      return static_cast<unsigned char>(entry.text[length]);
    };
    low = std::partition_point(low, high, [&](const Entry& e) { return at(e) < next; });
    high = std::partition_point(low, high, [&](const Entry& e) { return at(e) == next; });
  }
  return found;
}

void AddedTokenFinder::split(std::string_view text, std::vector<TextPart>& parts) const {
  std::size_t done = 0;
  std::size_t spaces_end = 0;  // of the run of white space that was looked at last
  for (std::size_t at = 0; at < text.size() && !entries_.empty();) {
    const Entry* found = longest(text.substr(at));
    if (found == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + found->text.size();
    at = end;
    const AddedToken& token = found->token;
    if (token.single_word &&
        (ends_with_word(text.substr(0, begin)) || begins_with_word(text.substr(end)))) {
      continue;
    }
    if (token.lstrip) begin = begin_of_spaces_at_end(text.substr(0, begin), std::min(done, begin));
    if (token.rstrip && end >= spaces_end) spaces_end = end + spaces_at_begin(text.substr(end));
    if (token.rstrip) end = spaces_end;
    if (token.lstrip) begin = std::max(begin, done);  // spaces that the token before took along
    if (begin >= end) continue;
    if (done < begin) parts.push_back({text.substr(done, begin - done), std::nullopt});
    parts.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done != text.size()) parts.push_back({text.substr(done), std::nullopt});
}

std::vector<AddedToken> read_added_tokens(const JsonReader& document,
                                          const Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  std::unordered_map<std::string, std::int32_t> ids;
  if (!document.has("added_tokens")) return tokens;
  std::int64_t next_id = vocabulary.count();
  for (const nlohmann::json& element : document.array("added_tokens")) {
    const JsonReader entry(element, concat(document.where(), ".added_tokens[", tokens.size(), "]"));
    AddedToken token = read_token(entry);
    const auto known = vocabulary.find(token.content);
    const std::int64_t expected = known ? *known : next_id;
    if (token.id != expected) {
      entry.fail("id", concat(expected, ", which the tokenizers library gives it"),
                 element.at("id"));
    }
    if (!ids.emplace(token.content, token.id).second) {
      entry.fail("content", "a token that is not added twice", element.at("content"));
    }
    next_id = std::max(next_id, expected + 1);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace fastdllm
