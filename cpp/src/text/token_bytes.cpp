#include "text/token_bytes.hpp"

#include <array>

#include "text/byte_alphabet.hpp"
#include "text/normalizer.hpp"
#include "text/utf8.hpp"

namespace fastdllm {
namespace {

// ByteLevel, and Fuse, which joins what it has joined already.
void check_byte_level(const JsonReader& decoder) {
  constexpr std::array<std::string_view, 3> kinds{"ByteLevel", "Fuse", "Sequence"};
  const std::size_t kind = decoder.one_of("type", kinds);
  if (kind == 0) return;
  const bool is_sequence = kind == 2;
  if (is_sequence) {
    const nlohmann::json& parts = decoder.array("decoders");
    for (const nlohmann::json& part : parts) {
      const JsonReader reader(part, concat(decoder.where(), ".decoders"));
      if (&part == &parts.front()) {
        check_byte_level(reader);
      } else {
        (void)reader.one_of("type", std::array<std::string_view, 1>{"Fuse"});
      }
    }
    if (!parts.empty()) return;
  }
  throw Error(ErrorCode::bad_package,
              concat(decoder.where(), " has no ByteLevel; expected one at its beginning"));
}

// Of tokens of characters: Replace, any number of them, then ByteFallback, then Fuse.
std::vector<Replacement> read_replacements(const JsonReader& decoder) {
  (void)decoder.one_of("type", std::array<std::string_view, 1>{"Sequence"});
  std::vector<Replacement> found;
  bool has_fallback = false;
  for (const nlohmann::json& part : decoder.array("decoders")) {
    const JsonReader reader(part, concat(decoder.where(), ".decoders"));
    if (has_fallback) {
      (void)reader.one_of("type", std::array<std::string_view, 1>{"Fuse"});
    } else if (reader.one_of("type", std::array<std::string_view, 2>{"Replace", "ByteFallback"})) {
      has_fallback = true;
    } else {
      found.emplace_back(reader);
    }
  }
  if (!has_fallback) {
    throw Error(ErrorCode::bad_package,
                concat(decoder.where(), " has no ByteFallback; expected one behind its Replace"));
  }
  return found;
}

}  // namespace

TokenBytes::TokenBytes(const JsonReader& document, const Vocabulary& vocabulary,
                       const std::vector<AddedToken>& added, bool is_byte_level)
    : is_byte_level_(is_byte_level) {
  std::vector<Replacement> replacements;
  if (is_byte_level) {
    check_byte_level(document.object("decoder"));
  } else {
    replacements = read_replacements(document.object("decoder"));
  }
  std::vector<std::string_view> tokens;
  const auto put = [&tokens](std::int32_t id, std::string_view token) {
    const auto place = static_cast<std::size_t>(id);
    if (place >= tokens.size()) tokens.resize(place + 1);
    tokens[place] = token;
  };
  for (const auto& [token, id] : vocabulary) put(id, token);
  for (const AddedToken& token : added) put(token.id, token.content);
  special_.resize(tokens.size());
  for (const AddedToken& token : added)
    special_[static_cast<std::size_t>(token.id)] = token.special;
  begins_.push_back(0);
  for (const std::string_view token : tokens) {
    if (is_byte_level) {
      bytes_ += from_alphabet(token);
    } else {
      std::string text(token);
      for (const Replacement& replacement : replacements) text = replacement.apply(text);
      const auto byte = byte_of_token(text);
      is_byte_.push_back(byte.has_value());
      bytes_ += byte ? std::string(1, static_cast<char>(*byte)) : text;
    }
    begins_.push_back(static_cast<std::uint32_t>(bytes_.size()));
  }
}

std::string TokenBytes::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  if (!is_byte_level_) return decode_runs(ids, skip_special_tokens);
  const std::string bytes = decode_bytes(ids, skip_special_tokens);
  return utf8::is_valid(bytes) ? bytes : utf8::replace_invalid(bytes);
}

// Bytes side by side are characters where they all are, else a replacement mark for each.
std::string TokenBytes::decode_runs(std::span<const std::int32_t> ids,
                                    bool skip_special_tokens) const {
  std::string text, run;
  const auto end_run = [&] {
    if (utf8::is_valid(run)) {
      text += run;
    } else {
      for (std::size_t i = 0; i < run.size(); ++i) utf8::append(text, utf8::replacement);
    }
    run.clear();
  };
  for (const std::int32_t id : ids) {
    const std::string_view token = bytes_of(id, skip_special_tokens);
    if (token.empty()) continue;
    if (is_byte_[static_cast<std::size_t>(id)]) {
      run += token;
    } else {
      end_run();
      text += token;
    }
  }
  end_run();
  return text;
}

std::string_view TokenBytes::bytes_of(std::int32_t id, bool skip_special_tokens) const {
  if (id < 0 || id >= size()) return {};
  const auto place = static_cast<std::size_t>(id);
  if (skip_special_tokens && special_[place]) return {};
  return std::string_view(bytes_).substr(begins_[place], begins_[place + 1] - begins_[place]);
}

std::string TokenBytes::decode_bytes(std::span<const std::int32_t> ids,
                                     bool skip_special_tokens) const {
  std::string text;
  for (const std::int32_t id : ids) text += bytes_of(id, skip_special_tokens);
  return text;
}

}  // namespace fastdllm
