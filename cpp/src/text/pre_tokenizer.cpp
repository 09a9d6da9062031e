#include "text/pre_tokenizer.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "text/utf8.hpp"

namespace fastdllm {
namespace {

// GPT-2's, which ByteLevel uses unless it is told not to.
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr std::array<std::string_view, 4> kinds{"ByteLevel", "Split", "Digits", "Sequence"};
constexpr std::array<std::string_view, 5> behaviors{"Isolated", "Removed", "MergedWithPrevious",
                                                    "MergedWithNext", "Contiguous"};

bool is_numeric(char32_t code) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

}  // namespace

PreTokenizer::PreTokenizer(const JsonReader& description) {
  add(description);
}

void PreTokenizer::add(const JsonReader& description) {
  const std::size_t kind = description.one_of("type", kinds);
  if (is_byte_level_) {
    throw Error(ErrorCode::bad_package,
                concat(description.where(), ".type is \"", kinds[kind],
                       "\" behind a ByteLevel; expected ByteLevel at the end, once"));
  }
  switch (kind) {
    case 0: return add_byte_level(description);
    case 1: return add_split(description);
    case 2:
      steps_.push_back({Numeric{}, description.boolean("individual_digits")
                                       ? Behavior::isolated
                                       : Behavior::contiguous});
      return;
    default: break;
  }
  std::size_t index = 0;
  for (const nlohmann::json& part : description.array("pretokenizers")) {
    add(JsonReader(part, concat(description.where(), ".pretokenizers[", index++, "]")));
  }
}

void PreTokenizer::add_byte_level(const JsonReader& description) {
  is_byte_level_ = true;
  add_prefix_space_ = description.boolean("add_prefix_space");
  prefix_at_ = steps_.size();
  if (!description.has("use_regex") || description.boolean("use_regex")) {
    steps_.push_back({Regex::compile(gpt2_pattern, description.where())});
  }
}

void PreTokenizer::add_split(const JsonReader& description) {
  steps_.push_back(
      {read_pattern(description), read_behavior(description), description.boolean("invert")});
}

PreTokenizer::Behavior PreTokenizer::read_behavior(const JsonReader& description) {
  return static_cast<Behavior>(description.one_of("behavior", behaviors));
}

std::vector<TextRange> PreTokenizer::find(const Step& step, std::string_view text) {
  if (const Regex* regex = std::get_if<Regex>(&step.pattern)) return regex->find_all(text);
  std::vector<TextRange> found;
  for (std::size_t at = 0; at < text.size();) {
    const utf8::Character next = utf8::first(text.substr(at));
    if (is_numeric(next.code)) found.push_back({at, at + next.length});
    at += next.length;
  }
  return found;
}

// The matches and what lies between them.
std::vector<PreTokenizer::Match> PreTokenizer::cover(const Step& step, std::string_view text) {
  std::vector<Match> parts;
  std::size_t end = 0;
  for (const TextRange& range : find(step, text)) {
    if (range.begin != end) parts.push_back({{end, range.begin}, step.invert});
    parts.push_back({range, !step.invert});
    end = range.end;
  }
  if (end != text.size()) parts.push_back({{end, text.size()}, step.invert});
  return parts;
}

void PreTokenizer::apply(const Step& step, std::string_view text,
                         std::vector<std::string_view>& words) {
  std::vector<Match> parts = cover(step, text);
  // A match joins its neighbour only if that is no match; `contiguous` joins those of one kind.
  const bool backwards = step.behavior == Behavior::merged_with_next;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<TextRange> kept;
  bool previous = false;
  for (const auto& [range, is_match] : parts) {
    bool joins = false;
    switch (step.behavior) {
      case Behavior::isolated: break;
      case Behavior::removed:
        if (is_match) continue;
        break;
      case Behavior::contiguous: joins = is_match == previous; break;
      case Behavior::merged_with_previous:
      case Behavior::merged_with_next: joins = is_match && !previous; break;
    }
    previous = is_match;
    if (!joins || kept.empty()) {
      kept.push_back(range);
    } else if (backwards) {
      kept.back().begin = range.begin;
    } else {
      kept.back().end = range.end;
    }
  }
  if (backwards) std::reverse(kept.begin(), kept.end());
  for (const TextRange& range : kept) {
    if (range.begin < range.end) words.push_back(text.substr(range.begin, range.end - range.begin));
  }
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text,
                                                  std::deque<std::string>& storage) const {
  std::vector<std::string_view> words;
  if (!text.empty()) words.push_back(text);
  for (std::size_t index = 0; index <= steps_.size(); ++index) {
    if (index == prefix_at_ && add_prefix_space_) {
      for (std::string_view& word : words) {
        if (!word.starts_with(' ')) word = storage.emplace_back(std::string(" ").append(word));
      }
    }
    if (index == steps_.size()) break;
    std::vector<std::string_view> pieces;
    for (const std::string_view word : words) apply(steps_[index], word, pieces);
    words = std::move(pieces);
  }
  return words;
}

}  // namespace fastdllm
