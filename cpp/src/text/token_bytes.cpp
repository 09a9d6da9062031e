#include "text/token_bytes.hpp"

#include <array>

#include "text/byte_alphabet.hpp"
#include "text/utf8.hpp"

namespace fastdllm {
namespace {

// Fuse joins what ByteLevel has joined already.
void check_decoder(const JsonReader& decoder) {
  constexpr std::array<std::string_view, 3> kinds{"ByteLevel", "Fuse", "Sequence"};
  const std::size_t kind = decoder.one_of("type", kinds);
  if (kind == 0) return;
  const bool is_sequence = kind == 2;
  if (is_sequence) {
    const nlohmann::json& parts = decoder.array("decoders");
    for (const nlohmann::json& part : parts) {
      const JsonReader reader(part, concat(decoder.where(), ".decoders"));
      if (&part == &parts.front()) {
        check_decoder(reader);
      } else {
        (void)reader.one_of("type", std::array<std::string_view, 1>{"Fuse"});
      }
    }
    if (!parts.empty()) return;
  }
  throw Error(ErrorCode::bad_package,
              concat(decoder.where(), " has no ByteLevel; expected one at its beginning"));
}

}  // namespace

TokenBytes::TokenBytes(const JsonReader& document, const Vocabulary& vocabulary,
                       const std::vector<AddedToken>& added) {
  check_decoder(document.object("decoder"));
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
    bytes_ += from_alphabet(token);
    begins_.push_back(static_cast<std::uint32_t>(bytes_.size()));
  }
}

std::string TokenBytes::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  const std::string bytes = decode_bytes(ids, skip_special_tokens);
  return utf8::is_valid(bytes) ? bytes : utf8::replace_invalid(bytes);
}

std::string TokenBytes::decode_bytes(std::span<const std::int32_t> ids,
                                     bool skip_special_tokens) const {
  std::string text;
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= size()) continue;
    const auto place = static_cast<std::size_t>(id);
    if (skip_special_tokens && special_[place]) continue;
    text.append(bytes_, begins_[place], begins_[place + 1] - begins_[place]);
  }
  return text;
}

}  // namespace fastdllm
