#include "text/oniguruma.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"
#include "text/utf8.hpp"

namespace fastdllm {
namespace {

// PCRE2's \s has U+180E too, and \S cannot be subtracted inside a class: both are spelled out.
constexpr std::string_view spaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view no_spaces =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
// Of a word, for Oniguruma: letters, marks, digits, connectors, the alphabetic symbols; and outside
// a class, by an oddity of its, the superscripts and fractions of Latin-1.
constexpr std::string_view word =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169})"
    R"(\x{1f170}-\x{1f189})";
constexpr std::string_view odd_word = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

constexpr std::array<std::string_view, 38> categories{
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl",
    "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk",
    "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cn", "Co", "Cs", "Han"};

// Groups that mean the same to both. "(?i)" does at the very beginning only, see group().
constexpr std::array<std::string_view, 8> groups{
    "(?:", "(?i:", "(?-i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_hex(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string translate() {
    while (at_ < pattern_.size()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw Error(ErrorCode::bad_package,
                concat(where_, ": ", what, " is not implemented in a split pattern"));
  }
  [[noreturn]] void refuse_here(std::size_t length) const {
    refuse(concat("\"", utf8::replace_invalid(pattern_.substr(at_, length)), "\""));
  }

  [[nodiscard]] std::string_view rest() const { return pattern_.substr(at_); }
  [[nodiscard]] char peek(std::size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  void copy(std::size_t length) {
    out_ += pattern_.substr(at_, length);
    at_ += length;
  }
  void write(std::string_view text, std::size_t length) {
    out_ += text;
    at_ += length;
  }

  // repeatable_: what a quantifier may follow was just written.
  void step() {
    const bool repeatable = std::exchange(repeatable_, true);
    switch (peek()) {
      case '\\': return escape(false);
      case '[': return character_class();
      case '(': return group();
      case '?':
      case '*':
      case '+': return repeat(repeatable);
      case '{': return interval(repeatable);
      case '}':
      case ']': out_ += '\\'; return copy(1);
      case '|':
      case '^':
      case '$': repeatable_ = false; return copy(1);
      default: return copy(utf8::first(rest()).length);
    }
  }

  void group() {
    repeatable_ = false;
    if (peek(1) == '*') refuse_here(2);
    if (peek(1) != '?') return copy(1);  // captures nothing, see regex.cpp
    if (at_ == 0 && rest().starts_with("(?i)")) return copy(4);
    for (const std::string_view known : groups) {
      if (rest().starts_with(known)) return copy(known.size());
    }
    refuse_here(4);
  }

  // "?", "*" and "+", lazy with a "?" behind it, possessive with a "+".
  void repeat(bool repeatable) {
    if (!repeatable) refuse_here(2);
    copy(1);
    if (peek() == '?' || peek() == '+') copy(1);
    repeatable_ = false;
  }

  void interval(bool repeatable) {
    std::size_t length = 1;
    while (is_digit(peek(length))) ++length;
    const bool open = length == 1;
    const bool range = peek(length) == ',';
    if (range) {
      do ++length;
      while (is_digit(peek(length)));
    }
    if (peek(length) != '}' || (open && length < 3)) return write("\\{", 1);  // a plain brace
    ++length;
    // "{,3}" is text to PCRE2; "{3}?" and "{1,3}+" repeat the repetition for Oniguruma.
    if (open || !repeatable || peek(length) == '+' || (peek(length) == '?' && !range)) {
      refuse_here(length + 1);
    }
    copy(length);
    if (peek() == '?') copy(1);
    repeatable_ = false;
  }

  void character_class() {
    copy(1);
    if (peek() == '^') copy(1);
    if (peek() == ']') refuse("\"]\" at the beginning of a character class");
    while (at_ < pattern_.size() && peek() != ']') {
      if (peek() == '[') refuse("a character class inside a class");
      if (rest().starts_with("&&")) refuse("\"&&\" in a character class");
      if (peek() == '\\') {
        escape(true);
      } else {
        copy(utf8::first(rest()).length);
      }
    }
    if (at_ == pattern_.size()) refuse("a character class without an end");
    copy(1);
  }

  void escape(bool in_class) {
    const char c = peek(1);
    switch (c) {
      case 's': return list(spaces, in_class);
      case 'S': return list(no_spaces, in_class);
      case 'w': return in_class ? write(word, 2) : write(concat("[", word, odd_word, "]"), 2);
      case 'W':
        if (in_class) refuse("\"\\W\" in a character class");
        return write(concat("[^", word, odd_word, "]"), 2);
      case 'd': return write("\\p{Nd}", 2);
      case 'D': return write("\\P{Nd}", 2);
      case 'v': return write("\\x{b}", 2);
      case 'a':
      case 'e':
      case 'f':
      case 'n':
      case 'r':
      case 't': return copy(2);
      case 'p':
      case 'P': return property();
      case 'u':
      case 'x': return code();
      default: break;
    }
    if (at_ + 1 == pattern_.size() || is_digit(c) || is_letter(c)) refuse_here(2);
    if (static_cast<unsigned char>(c) < 0x80) return copy(2);
    ++at_;
    copy(utf8::first(rest()).length);
  }

  void list(std::string_view members, bool in_class) {
    write(in_class ? std::string(members) : concat("[", members, "]"), 2);
  }

  // "\p{Lu}", "\P{Lu}" or "\p{^Lu}".
  void property() {
    const std::size_t end = rest().find('}');
    if (peek(2) != '{' || end == std::string_view::npos) refuse_here(3);
    std::string_view name = rest().substr(3, end - 3);
    const bool caret = name.starts_with('^');
    if (caret) name.remove_prefix(1);
    if (std::find(categories.begin(), categories.end(), name) == categories.end()) {
      refuse_here(end + 1);
    }
    const bool negated = caret != (peek(1) == 'P');
    write(concat(negated ? "\\P{" : "\\p{", name == "Han" ? "sc:Han" : name, "}"), end + 1);
  }

  // "\u4e00" or "\x{4e00}".
  void code() {
    const bool braces = peek(1) == 'x';
    if (braces && peek(2) != '{') refuse_here(4);
    const std::size_t begin = braces ? 3 : 2;
    std::size_t end = begin;
    while (is_hex(peek(end)) && (braces || end < 6)) ++end;
    if (end == begin || (braces ? peek(end) != '}' : end != 6)) refuse_here(end + 1);
    write(concat("\\x{", rest().substr(begin, end - begin), "}"), braces ? end + 1 : end);
  }

  std::string_view pattern_;
  std::string_view where_;
  std::size_t at_ = 0;
  std::string out_;
  bool repeatable_ = false;
};

}  // namespace

std::string from_oniguruma(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).translate();
}

}  // namespace fastdllm
