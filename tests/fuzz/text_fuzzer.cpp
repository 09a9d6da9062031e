// A chat_format as JSON, a NUL byte, bytes that choose, a NUL byte, a text. Any format is read or
// refused, any messages are rendered or refused; and text that streams, whatever is committed when,
// is the text that is decoded at once, up to the stop string that is complete first.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/error.hpp"
#include "fastdllm/text.hpp"
#include "json_mutator.hpp"
#include "libfuzzer.hpp"
#include "support/json_text.hpp"
#include "text/chat_format.hpp"
#include "text/utf8.hpp"

namespace {

using namespace fastdllm;
using fuzzing::require;

struct Input {
  std::string_view format, choices, text;
};

std::string_view take(std::string_view& data) {
  const std::size_t end = std::min(data.find('\0'), data.size());
  const std::string_view part = data.substr(0, end);
  data.remove_prefix(std::min(end + 1, data.size()));
  return part;
}

Input split(std::string_view data) {
  Input input;
  input.format = take(data);
  input.choices = take(data);
  input.text = data;
  return input;
}

class Choices {
 public:
  explicit Choices(std::string_view bytes) : bytes_(bytes) {}
  std::size_t below(std::size_t limit) {
    if (bytes_.empty() || limit == 0) return 0;
    const auto byte = static_cast<unsigned char>(bytes_[at_++ % bytes_.size()]);
    return (byte + at_ / bytes_.size()) % limit;
  }

 private:
  std::string_view bytes_;
  std::size_t at_ = 0;
};

void render(const Input& input) {
  Choices choices(input.choices);
  constexpr const char* roles[] = {"user", "assistant", "system", "tool"};
  std::vector<Message> messages;
  for (std::size_t i = choices.below(5); i > 0; --i) {
    messages.push_back({roles[choices.below(4)],
                        std::string(input.text.substr(choices.below(input.text.size() + 1)))});
  }
  std::optional<ChatFormat> format;
  try {
    format.emplace(JsonReader(parse_json(input.format, "chat_format"), "chat_format"));
  } catch (const Error& refusal) {
    require(refusal.code() == ErrorCode::bad_package);
    return;
  }
  try {
    static_cast<void>(format->render(messages));
  } catch (const Error& refusal) {
    require(refusal.code() == ErrorCode::bad_config);
  }
}

/// Where the stop string that is complete first ends the text.
std::size_t end_of(std::string_view text, const std::vector<std::string>& stops) {
  std::size_t begin = text.size();
  std::size_t complete = text.size() + 1;
  for (const std::string& stop : stops) {
    const std::size_t found = text.find(stop);
    if (found == std::string_view::npos || found + stop.size() > complete) continue;
    if (found + stop.size() == complete && found > begin) continue;
    begin = found;
    complete = found + stop.size();
  }
  return begin;
}

void stream(const TextCodec& codec, const Input& input) {
  Choices choices(input.choices);
  const std::vector<std::int32_t> ids = codec.tokenizer().encode(input.text);
  const std::string whole = codec.tokenizer().decode(ids);
  std::vector<std::string> stops;
  for (std::size_t i = choices.below(3); i > 0; --i) {
    const std::size_t at = choices.below(whole.size() + 1);
    const std::string stop = whole.substr(at, 1 + choices.below(4));
    if (!stop.empty() && utf8::is_valid(stop)) stops.push_back(stop);
  }
  std::vector<std::int32_t> order(ids.size());
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[choices.below(i)]);

  TextStream stream(codec, {}, stops);
  std::string streamed;
  for (std::size_t at = 0; at < order.size();) {
    const std::size_t count = std::min(1 + choices.below(5), order.size() - at);
    std::vector<std::int32_t> positions(order.begin() + static_cast<std::ptrdiff_t>(at),
                                        order.begin() + static_cast<std::ptrdiff_t>(at + count));
    std::sort(positions.begin(), positions.end());
    std::vector<std::int32_t> tokens;
    for (const std::int32_t position : positions) {
      tokens.push_back(ids[static_cast<std::size_t>(position)]);
    }
    const std::string piece = stream.push(positions, tokens);
    require(utf8::is_valid(piece));
    streamed += piece;
    at += count;
  }
  streamed += stream.finish();
  require(streamed == stream.text());
  require(streamed == whole.substr(0, end_of(whole, stops)));
  if (streamed.size() < whole.size()) require(stream.stop().has_value());
  require(stream.tokens_of(streamed) <= std::ssize(ids));
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const TextCodec codec(FUZZ_PACKAGE);
  const Input input = split(fuzzing::text_of(data, size));
  render(input);
  stream(codec, input);
  return 0;
}

std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most,
                                    unsigned seed) {
  const Input input = split(fuzzing::text_of(data, size));
  std::string changed(fuzzing::text_of(data, size));
  if (seed % 3 == 0) {
    changed = fuzzing::mutate_json(input.format, most, seed / 3) + '\0' +
              std::string(input.choices) + '\0' + std::string(input.text);
  } else {
    const std::size_t kept = std::min(input.format.size() + 1, size);
    std::string rest = changed.substr(kept);
    rest.resize(rest.size() + 64);
    rest.resize(
        LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(rest.data()), size - kept, rest.size()));
    changed = changed.substr(0, kept) + rest;
  }
  changed.resize(std::min(changed.size(), most));
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}
