#include "text/normalizer.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "text/utf8.hpp"

namespace fastdllm {
namespace {

using Code = utf8proc_int32_t;

// Below U+0300 nothing composes or moves.
bool is_settled(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

int combining_class(Code code) {
  return utf8proc_get_property(code)->combining_class;
}

std::vector<Code> decompose(std::string_view text) {
  std::vector<Code> codes;
  codes.reserve(text.size());
  std::array<Code, 16> parts{};  // the longest decomposition has 4
  while (!text.empty()) {
    const utf8::Character next = utf8::first(text);
    int last_class = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<Code>(next.code), parts.data(), parts.size(), UTF8PROC_DECOMPOSE, &last_class);
    codes.insert(codes.end(), parts.begin(), parts.begin() + std::max<utf8proc_ssize_t>(count, 0));
    text.remove_prefix(next.length);
  }
  return codes;
}

// Unicode's canonical order. utf8proc's own sorts by exchanging neighbours, which takes hours on a
// megabyte of accents.
void order_marks(std::vector<Code>& codes) {
  const auto is_mark = [](Code code) { return combining_class(code) != 0; };
  for (auto begin = codes.begin(); begin != codes.end();) {
    begin = std::find_if(begin, codes.end(), is_mark);
    const auto end = std::find_if_not(begin, codes.end(), is_mark);
    std::stable_sort(begin, end,
                     [](Code a, Code b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

}  // namespace

std::string to_nfc(std::string_view text) {
  if (is_settled(text)) return std::string(text);
  std::vector<Code> codes = decompose(text);
  order_marks(codes);
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  codes.resize(static_cast<std::size_t>(std::max<utf8proc_ssize_t>(count, 0)));
  std::string out;
  out.reserve(text.size());
  for (const Code code : codes) utf8::append(out, static_cast<char32_t>(code));
  return out;
}

Replacement::Replacement(const JsonReader& description)
    : pattern_(read_pattern(description)), content_(description.string("content")) {}

std::string Replacement::apply(std::string_view text) const {
  std::string out;
  std::size_t done = 0;
  for (const TextRange& range : pattern_.find_all(text)) {
    out.append(text.substr(done, range.begin - done)).append(content_);
    done = range.end;
  }
  return out.append(text.substr(done));
}

Normalizer::Normalizer(const JsonReader& description) {
  add(description);
}

void Normalizer::add(const JsonReader& description) {
  constexpr std::array<std::string_view, 3> kinds{"NFC", "Replace", "Sequence"};
  switch (description.one_of("type", kinds)) {
    case 0: steps_.emplace_back(); return;
    case 1: steps_.emplace_back(description); return;
    default: break;
  }
  std::size_t index = 0;
  for (const nlohmann::json& part : description.array("normalizers")) {
    add(JsonReader(part, concat(description.where(), ".normalizers[", index++, "]")));
  }
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const std::optional<Replacement>& step : steps_) out = step ? step->apply(out) : to_nfc(out);
  return out;
}

}  // namespace fastdllm
