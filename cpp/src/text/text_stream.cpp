#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "fastdllm/error.hpp"
#include "fastdllm/text.hpp"
#include "support/concat.hpp"
#include "text/utf8.hpp"

namespace fastdllm {

// Tokens become bytes, bytes characters, as they come: nothing is decoded twice, however long the
// answer.
struct TextStream::State {
  State(const Tokenizer& borrowed, std::vector<std::int32_t> ids, std::vector<std::string> strings);

  const Tokenizer& tokenizer;
  std::vector<std::int32_t> stop_ids;
  std::vector<std::string> stop_strings;
  std::size_t longest_stop = 0;

  std::unordered_map<std::int32_t, std::int32_t> waiting;  // tokens behind a gap, by position
  bool ended = false;                                      // by a stop token
  std::string bytes;                                       // of a character that is not finished
  std::string ahead;                                       // characters that were not given out
  // How many bytes of `ahead` stand before the U+FFFD at its end; those may be of a character to
  // come.
  std::size_t solid = 0;
  std::string text;               // given out
  std::vector<std::size_t> ends;  // of each token's text: text and what is solid ahead
  std::optional<std::string> stop;

  void take(std::int32_t token);
  void take_characters();
  [[nodiscard]] std::string advance(bool final);
  [[nodiscard]] std::size_t held_back(std::string_view final_text) const;
};

TextStream::State::State(const Tokenizer& borrowed, std::vector<std::int32_t> ids,
                         std::vector<std::string> strings)
    : tokenizer(borrowed), stop_ids(std::move(ids)), stop_strings(std::move(strings)) {
  for (std::size_t i = 0; i < stop_strings.size(); ++i) {
    const std::string& text_of_stop = stop_strings[i];
    if (text_of_stop.empty() || !utf8::is_valid(text_of_stop)) {
      throw Error(ErrorCode::bad_config,
                  concat("stop[", i, "] is ", text_of_stop.empty() ? "empty" : "no UTF-8",
                         "; expected some text"));
    }
    longest_stop = std::max(longest_stop, text_of_stop.size());
  }
}

TextStream::TextStream(const TextCodec& codec, std::vector<std::int32_t> stop_ids,
                       std::vector<std::string> stop)
    : state_(std::make_unique<State>(codec.tokenizer(), std::move(stop_ids), std::move(stop))) {}

TextStream::~TextStream() = default;
TextStream::TextStream(TextStream&&) noexcept = default;
TextStream& TextStream::operator=(TextStream&&) noexcept = default;

std::string TextStream::push(std::span<const std::int32_t> positions,
                             std::span<const std::int32_t> token_ids) {
  if (positions.size() != token_ids.size()) {
    throw Error(ErrorCode::bad_config, concat("got ", positions.size(), " positions and ",
                                              token_ids.size(), " tokens; expected as many"));
  }
  State& state = *state_;
  for (std::size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] >= std::ssize(state.ends)) {
      state.waiting.insert_or_assign(positions[i], token_ids[i]);
    }
  }
  const std::size_t before = state.ends.size();
  while (!state.ended) {
    const auto next = state.waiting.extract(static_cast<std::int32_t>(state.ends.size()));
    if (next.empty()) break;
    state.take(next.mapped());
  }
  return state.ends.size() > before ? state.advance(false) : std::string();
}

std::string TextStream::finish() {
  return state_->advance(true);
}

const std::string& TextStream::text() const noexcept {
  return state_->text;
}

const std::optional<std::string>& TextStream::stop() const noexcept {
  return state_->stop;
}

std::int64_t TextStream::tokens_of(std::string_view text) const {
  if (text.empty()) return 0;
  const std::vector<std::size_t>& ends = state_->ends;
  const auto found = std::lower_bound(ends.begin(), ends.end(), text.size());
  return found - ends.begin() + (found != ends.end() ? 1 : 0);
}

void TextStream::State::take(std::int32_t token) {
  ended = std::find(stop_ids.begin(), stop_ids.end(), token) != stop_ids.end();
  bytes += tokenizer.decode_bytes(std::array{token});
  take_characters();
  ends.push_back(text.size() + solid);
}

void TextStream::State::take_characters() {
  std::size_t taken = 0;
  while (taken < bytes.size()) {
    const std::string_view rest = std::string_view(bytes).substr(taken);
    const utf8::Character character = utf8::first(rest);
    if (!character.valid && character.length == rest.size()) break;  // more may come
    taken += character.length;
    utf8::append(ahead, character.code);
    if (character.code != utf8::replacement) solid = ahead.size();
  }
  bytes.erase(0, taken);
}

std::string TextStream::State::advance(bool final) {
  if (stop) return {};
  if (final && !bytes.empty()) {
    utf8::append(ahead, utf8::replacement);
    bytes.clear();
  }
  const std::string_view known = std::string_view(ahead).substr(0, final ? ahead.size() : solid);
  // What was given out begins no stop string. The one that is complete first counts, and of these
  // the longest.
  std::pair<std::size_t, std::size_t> first{std::string_view::npos, 0};
  for (const std::string& text_of_stop : stop_strings) {
    const std::size_t at = known.find(text_of_stop);
    if (at == std::string_view::npos) continue;
    const std::pair<std::size_t, std::size_t> found{at + text_of_stop.size(), at};
    if (found >= first) continue;
    first = found;
    stop = text_of_stop;
  }
  std::size_t end = first.second;
  if (!stop) end = known.size() - (final ? 0 : held_back(known));
  std::string piece = ahead.substr(0, end);
  text += piece;
  ahead.erase(0, end);
  solid -= std::min(solid, end);
  return piece;
}

// The length of the longest end of the text that could begin a stop string.
std::size_t TextStream::State::held_back(std::string_view final_text) const {
  if (longest_stop == 0) return 0;
  for (std::size_t length = std::min(final_text.size(), longest_stop - 1); length > 0; --length) {
    const std::string_view end = final_text.substr(final_text.size() - length);
    for (const std::string& text_of_stop : stop_strings) {
      if (text_of_stop.starts_with(end)) return length;
    }
  }
  return 0;
}

}  // namespace fastdllm
