// A tokenizer.json, then a NUL byte, then a text. Any file is read, or refused by
// Error{bad_package}; with one that is read any text is encoded, in ids that are in the vocabulary
// and come back as UTF-8.
#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/error.hpp"
#include "fastdllm/tokenizer.hpp"
#include "json_mutator.hpp"
#include "libfuzzer.hpp"
#include "text/utf8.hpp"

namespace {

using namespace fastdllm;

struct Input {
  std::string_view file, text;
};

Input split(std::string_view data) {
  const std::size_t end = std::min(data.find('\0'), data.size());
  return {data.substr(0, end), data.substr(std::min(end + 1, data.size()))};
}

std::optional<Tokenizer> read(std::string_view file) {
  try {
    return Tokenizer::parse(file);
  } catch (const Error& refusal) {
    fuzzing::require(refusal.code() == ErrorCode::bad_package);
    return std::nullopt;
  }
}

void encode(const Tokenizer& tokenizer, std::string_view text) {
  try {
    const std::vector<std::int32_t> ids = tokenizer.encode(text);
    for (const std::int32_t id : ids) {
      fuzzing::require(id >= 0 && id < tokenizer.vocab_size());
    }
    for (const bool skip : {false, true}) {
      const std::string decoded = tokenizer.decode(ids, skip);
      fuzzing::require(utf8::is_valid(decoded));
      static_cast<void>(tokenizer.encode(decoded));
    }
  } catch (const Error& refusal) {  // of a pattern that backtracks without end
    fuzzing::require(refusal.code() == ErrorCode::bad_package);
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input input = split(fuzzing::text_of(data, size));
  const std::optional<Tokenizer> tokenizer = read(input.file);
  if (!tokenizer) return 0;
  encode(*tokenizer, input.text);
  // Any numbers as ids.
  std::vector<std::int32_t> ids(input.text.size() / sizeof(std::int32_t));
  if (!ids.empty()) std::memcpy(ids.data(), input.text.data(), 4 * ids.size());
  fuzzing::require(utf8::is_valid(tokenizer->decode(ids, false)));
  static_cast<void>(tokenizer->token_id(input.text));
  return 0;
}

std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most,
                                    unsigned seed) {
  const Input input = split(fuzzing::text_of(data, size));
  std::string file(input.file);
  std::string text(input.text);
  if (seed % 3 != 0) {
    file = fuzzing::mutate_json(file, most - std::min(most, text.size() + 1), seed / 3);
  } else {
    std::string larger = text;
    larger.resize(text.size() + 64);
    auto* bytes = reinterpret_cast<std::uint8_t*>(larger.data());
    larger.resize(LLVMFuzzerMutate(bytes, text.size(), larger.size()));
    text = larger;
  }
  std::string changed = file + '\0' + text;
  changed.resize(std::min(changed.size(), most));
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}
