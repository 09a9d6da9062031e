#include "fastdllm/text.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "fastdllm/error.hpp"
#include "fastdllm/package.hpp"
#include "package/package_json.hpp"
#include "support/concat.hpp"
#include "support/json_reader.hpp"
#include "support/sha256.hpp"
#include "text/chat_format.hpp"
#include "text/control_tokens.hpp"

namespace fastdllm {
namespace {

using nlohmann::json;

// The tokenizer that fastdllm.json names. Its size was checked with the other files'.
Tokenizer read_tokenizer(const PackageInfo& package, const JsonReader& metadata) {
  const JsonReader entry = metadata.object("tokenizer");
  const std::string name = entry.string("file");
  const JsonReader files = metadata.object("files");  // plain names only
  if (!files.has(name)) entry.fail("file", "a file that is listed", entry.members().at("file"));
  const std::filesystem::path path = package.path / name;
  require_sha256(path, files.object(name).string("sha256"));
  Tokenizer tokenizer(path);
  if (tokenizer.vocab_size() > package.vocab_size) {
    throw Error(ErrorCode::bad_package,
                concat(path.string(), ": holds id ", tokenizer.vocab_size() - 1,
                       "; the model's vocabulary is [0, ", package.vocab_size, ")"));
  }
  return tokenizer;
}

std::vector<std::int32_t> control_ids(const PackageInfo& package) {
  std::vector<std::int32_t> ids = package.eos_token_ids;
  ids.push_back(package.mask_token_id);
  for (const auto& id : {package.bos_token_id, package.pad_token_id}) {
    if (id) ids.push_back(*id);
  }
  return ids;
}

// The texts of the tokens that the chat template may name.
std::vector<std::string> special_texts(const JsonReader& metadata) {
  const JsonReader entry = metadata.object("tokenizer");
  std::vector<std::string> texts;
  if (!entry.has("special_tokens") || entry.is_null("special_tokens")) return texts;
  const JsonReader tokens = entry.object("special_tokens");
  for (const auto& [role, text] : tokens.members().items()) texts.push_back(tokens.string(role));
  return texts;
}

std::vector<Message> read_messages(const json& list) {
  std::vector<Message> messages;
  for (const json& item : list) {
    const JsonReader message(item, "probes.json.chat.messages");
    messages.push_back({message.string("role"), message.string("content")});
  }
  return messages;
}

std::string shown(std::span<const std::int32_t> ids) {
  constexpr std::size_t most = 24;
  std::string text = "[";
  for (std::size_t i = 0; i < std::min(ids.size(), most); ++i) {
    text += concat(i > 0 ? ", " : "", ids[i]);
  }
  return text + (ids.size() > most ? ", ...]" : "]");
}

std::string shown(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

void compare_ids(const Tokenizer& tokenizer, const JsonReader& probe,
                 std::vector<std::string>& differences) {
  const std::string text = probe.string("text");
  std::vector<std::int32_t> expected;
  for (const json& id : probe.array("token_ids")) {
    expected.push_back(static_cast<std::int32_t>(probe.integer_in("token_ids", id, 0, INT32_MAX)));
  }
  const std::vector<std::int32_t> found = tokenizer.encode(text);
  if (found == expected) return;
  differences.push_back(
      concat(shown(text), " encodes to ", shown(found), "; expected ", shown(expected)));
}

void compare_chat(const TextCodec& codec, const JsonReader& probe,
                  std::vector<std::string>& differences) {
  const std::vector<Message> messages = read_messages(probe.array("messages"));
  const std::string expected = probe.string("text");
  std::string found;
  try {
    found = codec.render_chat(messages);
  } catch (const Error&) {
    return;  // a refusal is no difference
  }
  if (found == expected) return;
  differences.push_back(concat("a conversation of ", messages.size(), " messages renders to ",
                               shown(found), "; expected ", shown(expected)));
}

}  // namespace

struct TextCodec::State {
  State(const PackageInfo& package, const JsonReader& metadata);

  Tokenizer tokenizer;
  ControlTokens control_tokens;
  bool has_chat = false;
  std::optional<ChatFormat> format;
  std::vector<std::pair<json, ChatFormat>> variants;  // by the variables that they are for
  std::string why_no_format;

  // Errors: Error{bad_config} for variables that no format is for.
  [[nodiscard]] const ChatFormat& format_of(std::string_view variables) const;
};

TextCodec::State::State(const PackageInfo& package, const JsonReader& metadata)
    : tokenizer(read_tokenizer(package, metadata)),
      control_tokens(tokenizer.added_tokens(), control_ids(package), special_texts(metadata)) {
  const JsonReader entry = metadata.object("tokenizer");
  has_chat = !entry.is_null("chat_template");
  if (!has_chat) {
    why_no_format = "the package has no chat template; give text or token ids instead";
  } else if (!entry.has("chat_format")) {
    why_no_format =
        "the package was exported before there was a chat format; export it again, or give text "
        "or token ids";
  } else if (entry.is_null("chat_format")) {
    why_no_format =
        concat("the package's chat template is more than a chat format",
               entry.has("chat_format_reason") ? ": " + entry.string("chat_format_reason") : "",
               "; render it elsewhere and give text or token ids");
  } else {
    format.emplace(entry.object("chat_format"));
    if (entry.absent("chat_format_variants")) return;
    for (const json& item : entry.array("chat_format_variants")) {
      const JsonReader variant(item, "fastdllm.json.tokenizer.chat_format_variants");
      variants.emplace_back(variant.object("variables").members(),
                            ChatFormat(variant.object("format")));
    }
  }
}

const ChatFormat& TextCodec::State::format_of(std::string_view variables) const {
  if (variables.empty()) return *format;
  const json wanted = json::parse(variables, nullptr, false);
  if (!wanted.is_object()) {
    throw Error(ErrorCode::bad_config,
                printable("chat_template_kwargs is no JSON object; expected one"));
  }
  if (wanted.empty()) return *format;
  std::string known;
  for (const auto& [its, variant] : variants) {
    if (its == wanted) return variant;
    known += concat(known.empty() ? "" : ", ", its.dump());
  }
  throw Error(
      ErrorCode::bad_config,
      printable(concat(
          "chat_template_kwargs is ", wanted.dump(-1, ' ', false, json::error_handler_t::replace),
          "; the package has a chat format for ", known.empty() ? "no variables" : known)));
}

TextCodec::TextCodec(const std::filesystem::path& package) {
  const PackageInfo info = read_package(package);
  const json document = read_metadata(package);
  const JsonReader metadata(document, "fastdllm.json");
  if (metadata.is_null("tokenizer")) {
    throw Error(ErrorCode::bad_package,
                concat(package.string(), ": has no tokenizer; use Engine with token ids"));
  }
  state_ = std::make_unique<const State>(info, metadata);
}

TextCodec::~TextCodec() = default;
TextCodec::TextCodec(TextCodec&&) noexcept = default;
TextCodec& TextCodec::operator=(TextCodec&&) noexcept = default;

const Tokenizer& TextCodec::tokenizer() const noexcept {
  return state_->tokenizer;
}

bool TextCodec::has_chat() const noexcept {
  return state_->has_chat;
}

std::string TextCodec::render_chat(std::span<const Message> messages) const {
  return render_chat(messages, {});
}

std::string TextCodec::render_chat(std::span<const Message> messages,
                                   std::string_view chat_template_kwargs) const {
  if (!state_->format) throw Error(ErrorCode::bad_config, state_->why_no_format);
  return state_->format_of(chat_template_kwargs).render(messages);
}

std::vector<std::int32_t> TextCodec::encode_chat(std::span<const Message> messages) const {
  return encode_chat(messages, {});
}

std::vector<std::int32_t> TextCodec::encode_chat(std::span<const Message> messages,
                                                 std::string_view chat_template_kwargs) const {
  Marks marks;
  const std::vector<Message> given = state_->control_tokens.mark(messages, marks);
  return tokenizer().encode_marked(render_chat(given, chat_template_kwargs), marks);
}

std::vector<std::string> check_text(const std::filesystem::path& package) {
  const TextCodec codec(package);
  const json document = read_json(package / "probes.json");
  const JsonReader probes(document, "probes.json");
  std::vector<std::string> differences;
  for (const json& probe : probes.array("tokenizer")) {
    compare_ids(codec.tokenizer(), JsonReader(probe, "probes.json.tokenizer"), differences);
  }
  if (!probes.has("chat")) return differences;
  for (const json& probe : probes.array("chat")) {
    compare_chat(codec, JsonReader(probe, "probes.json.chat"), differences);
  }
  return differences;
}

}  // namespace fastdllm
