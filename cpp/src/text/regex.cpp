#include "text/regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <new>
#include <optional>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"
#include "text/oniguruma.hpp"
#include "text/utf8.hpp"

namespace fastdllm {
namespace {

struct Free {
  void operator()(pcre2_code* code) const noexcept { pcre2_code_free(code); }
  void operator()(pcre2_compile_context* context) const noexcept {
    pcre2_compile_context_free(context);
  }
  void operator()(pcre2_match_context* context) const noexcept {
    pcre2_match_context_free(context);
  }
  void operator()(pcre2_match_data* data) const noexcept { pcre2_match_data_free(data); }
};

template <typename T>
using Owned = std::unique_ptr<T, Free>;

template <typename T>
Owned<T> own(T* made) {
  if (made == nullptr) throw std::bad_alloc();
  return Owned<T>(made);
}

// A match that takes more steps than this is tried again with a larger limit, on account.
constexpr std::uint32_t free_steps = 4096;
constexpr std::uint32_t heap_kibibytes = 64U << 10;

Owned<pcre2_match_context> make_context(std::uint32_t steps) {
  auto context = own(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), steps);
  pcre2_set_heap_limit(context.get(), heap_kibibytes);
  return context;
}

const unsigned char* bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

struct Regex::Code {
  Owned<pcre2_code> code;
  Owned<pcre2_match_context> context;
  std::string where;
};

namespace {

// Matches at one position after another. What all positions together may cost grows with the text
// alone, whatever the pattern: one that backtracks without end is an error, not a hang.
class Matcher {
 public:
  Matcher(const pcre2_code* code, pcre2_match_context* context, std::string_view text)
      : code_(code),
        context_(context),
        text_(text),
        data_(own(pcre2_match_data_create(1, nullptr))),
        budget_((std::uint64_t{1} << 22) + 64 * text.size()) {}

  enum class Outcome { match, none, too_many_steps };

  Outcome match_at(std::size_t begin) {
    int found = run(begin, context_, 0);
    for (std::uint64_t limit = std::uint64_t{free_steps} * 16; is_limit(found); limit *= 16) {
      if (budget_ < limit) return Outcome::too_many_steps;
      budget_ -= limit;
      const auto larger =
          make_context(static_cast<std::uint32_t>(std::min<std::uint64_t>(limit, UINT32_MAX)));
      // The compiled code's stack is small; the interpreter's frames lie on the heap.
      found = run(begin, larger.get(), PCRE2_NO_JIT);
      if (found == PCRE2_ERROR_HEAPLIMIT) return Outcome::too_many_steps;
    }
    if (found == PCRE2_ERROR_NOMATCH) return Outcome::none;
    return found < 0 ? Outcome::too_many_steps : Outcome::match;
  }

  [[nodiscard]] std::size_t end() const { return pcre2_get_ovector_pointer(data_.get())[1]; }

 private:
  [[nodiscard]] static bool is_limit(int found) {
    return found == PCRE2_ERROR_MATCHLIMIT || found == PCRE2_ERROR_JIT_STACKLIMIT;
  }
  [[nodiscard]] int run(std::size_t begin, pcre2_match_context* context, std::uint32_t options) {
    return pcre2_match(code_, bytes(text_), text_.size(), begin, options | PCRE2_NO_UTF_CHECK,
                       data_.get(), context);
  }

  const pcre2_code* code_;
  pcre2_match_context* context_;
  std::string_view text_;
  Owned<pcre2_match_data> data_;
  std::uint64_t budget_;
};

}  // namespace

Regex Regex::make(const std::string& pattern, unsigned options, std::string_view where) {
  const auto context = own(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int problem = 0;
  std::size_t offset = 0;
  // Anchored: the search from position to position is ours, see Matcher.
  Owned<pcre2_code> code(pcre2_compile(bytes(pattern), pattern.size(),
                                       options | PCRE2_UTF | PCRE2_ANCHORED, &problem, &offset,
                                       context.get()));
  if (code == nullptr) {
    std::array<unsigned char, 128> reason{};
    pcre2_get_error_message(problem, reason.data(), reason.size());
    throw Error(ErrorCode::bad_package,
                concat(where, ": not a usable pattern: ",
                       std::string(reason.begin(), std::find(reason.begin(), reason.end(), 0))));
  }
  // Where there is no code generator the interpreter matches, only slower.
  (void)pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return Regex(std::make_shared<const Code>(
      Code{std::move(code), make_context(free_steps), std::string(where)}));
}

Regex Regex::compile(std::string_view pattern, std::string_view where) {
  return make(from_oniguruma(pattern, where), PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE,
              where);
}

Regex Regex::literal(std::string_view text, std::string_view where) {
  return make(std::string(text), PCRE2_LITERAL, where);
}

std::vector<TextRange> Regex::find_all(std::string_view text) const {
  Matcher matcher(code_->code.get(), code_->context.get(), text);
  std::vector<TextRange> found;
  for (std::size_t at = 0; at <= text.size();) {
    const Matcher::Outcome outcome = matcher.match_at(at);
    if (outcome == Matcher::Outcome::too_many_steps) {
      throw Error(ErrorCode::bad_package,
                  concat(code_->where, ": the pattern backtracks too much on a text of ",
                         text.size(), " bytes"));
    }
    const bool is_new = outcome == Matcher::Outcome::match &&
                        !(matcher.end() == at && !found.empty() && found.back().end == at);
    if (is_new) {
      found.push_back({at, matcher.end()});
      at = matcher.end();
    } else {
      at += at < text.size() ? utf8::first(text.substr(at)).length : 1;
    }
  }
  return found;
}

Regex read_pattern(const JsonReader& description) {
  const JsonReader pattern = description.object("pattern");
  const bool literal = pattern.has("String");
  const std::string text = pattern.string(literal ? "String" : "Regex");
  const std::string where = concat(pattern.where(), literal ? ".String" : ".Regex");
  return literal ? Regex::literal(text, where) : Regex::compile(text, where);
}

}  // namespace fastdllm
