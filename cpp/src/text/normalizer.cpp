#include "text/normalizer.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "text/utf8.hpp"

namespace fastdllm {
namespace {

using Code = utf8proc_int32_t;

constexpr std::array<std::string_view, 5> kinds{"NFC", "NFD", "NFKC", "NFKD", "Sequence"};
constexpr std::array<int, 4> kind_options{
    UTF8PROC_STABLE | UTF8PROC_COMPOSE,
    UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
    UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
    UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
};

// Below U+0300 nothing composes or moves; only NFC leaves all of it as it is.
bool is_settled(std::string_view text, int options) {
  const bool composes = (options & (UTF8PROC_COMPOSE | UTF8PROC_COMPAT)) == UTF8PROC_COMPOSE;
  const unsigned char end = composes ? 0xCC : 0x80;
  return std::all_of(text.begin(), text.end(),
                     [end](char c) { return static_cast<unsigned char>(c) < end; });
}

int combining_class(Code code) {
  return utf8proc_get_property(code)->combining_class;
}

std::vector<Code> decompose(std::string_view text, int options) {
  const auto flags =
      static_cast<utf8proc_option_t>((options & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE);
  std::vector<Code> codes;
  codes.reserve(text.size());
  std::array<Code, 64> parts{};  // the longest decomposition has 18
  while (!text.empty()) {
    const utf8::Character next = utf8::first(text);
    int last_class = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<Code>(next.code), parts.data(), parts.size(), flags, &last_class);
    codes.insert(codes.end(), parts.begin(), parts.begin() + std::max<utf8proc_ssize_t>(count, 0));
    text.remove_prefix(next.length);
  }
  return codes;
}

// Unicode's canonical order. utf8proc's own sorts by exchanging neighbours, which takes hours on a
// megabyte of accents.
void order_marks(std::vector<Code>& codes) {
  for (auto begin = codes.begin(); begin != codes.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, codes.end(), [](Code code) { return combining_class(code) == 0; });
    std::stable_sort(begin, end,
                     [](Code a, Code b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

std::string normalized(std::string_view text, int options) {
  if (is_settled(text, options)) return std::string(text);
  std::vector<Code> codes = decompose(text, options);
  order_marks(codes);
  if ((options & UTF8PROC_COMPOSE) != 0) {
    const utf8proc_ssize_t count =
        utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                                 static_cast<utf8proc_option_t>(options));
    codes.resize(static_cast<std::size_t>(std::max<utf8proc_ssize_t>(count, 0)));
  }
  std::string out;
  out.reserve(text.size());
  for (const Code code : codes) utf8::append(out, static_cast<char32_t>(code));
  return out;
}

}  // namespace

Normalizer::Normalizer(const JsonReader& description) {
  add(description);
}

void Normalizer::add(const JsonReader& description) {
  const std::size_t kind = description.one_of("type", kinds);
  if (kind < kind_options.size()) {
    options_.push_back(kind_options[kind]);
    return;
  }
  for (const nlohmann::json& part : description.array("normalizers")) {
    add(JsonReader(part, concat(description.where(), ".normalizers")));
  }
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const int options : options_) out = normalized(out, options);
  return out;
}

}  // namespace fastdllm
