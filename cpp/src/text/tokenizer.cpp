#include "fastdllm/tokenizer.hpp"

#include <algorithm>
#include <array>
#include <deque>

#include "support/files.hpp"
#include "support/json_text.hpp"
#include "text/added_tokens.hpp"
#include "text/bpe.hpp"
#include "text/control_tokens.hpp"
#include "text/normalizer.hpp"
#include "text/pre_tokenizer.hpp"
#include "text/token_bytes.hpp"
#include "text/utf8.hpp"

namespace fastdllm {
namespace {

constexpr std::uintmax_t largest_file = 256U << 20;

// What the file does to a text before and after: these would change the ids.
void refuse_unless_null(const JsonReader& document, std::string_view key) {
  if (!document.absent(key)) document.fail(key, "null", document.members().at(key));
}

// A post-processor adds special tokens, which encode() never does; nothing else of it may matter.
void check_post_processor(const JsonReader& processor) {
  constexpr std::array<std::string_view, 5> kinds{
      "ByteLevel", "BertProcessing", "RobertaProcessing", "TemplateProcessing", "Sequence"};
  const std::size_t kind = processor.one_of("type", kinds);
  if (kind == 3) {
    std::size_t texts = 0;
    for (const nlohmann::json& piece : processor.array("single")) {
      if (piece.contains("Sequence")) ++texts;
    }
    if (texts != 1)
      processor.fail("single", "a template that holds the text once", processor.array("single"));
  } else if (kind == 4) {
    for (const nlohmann::json& part : processor.array("processors")) {
      check_post_processor(JsonReader(part, concat(processor.where(), ".processors")));
    }
  }
}

std::vector<AddedToken> select(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> selected;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(selected),
               [normalized](const AddedToken& token) { return token.normalized == normalized; });
  // Special ones come first where two look for the same text.
  std::stable_partition(selected.begin(), selected.end(),
                        [](const AddedToken& token) { return token.special; });
  return selected;
}

// The library decodes such a token in its normal form, and has an order of its own for two that
// become the same text.
void refuse_unless_normal(const JsonReader& document, const std::vector<AddedToken>& tokens,
                          const Normalizer& normalizer) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const AddedToken& token = tokens[i];
    const std::string normal = normalizer.apply(token.content);
    if (!token.normalized || normal == token.content) continue;
    const nlohmann::json& entry = document.array("added_tokens")[i];
    JsonReader(entry, concat(document.where(), ".added_tokens[", i, "]"))
        .fail("content", "a text that the normalizer leaves as it is, or normalized false",
              entry.at("content"));
  }
}

Normalizer read_normalizer(const JsonReader& document) {
  if (document.absent("normalizer")) return {};
  return Normalizer(document.object("normalizer"));
}

PreTokenizer read_pre_tokenizer(const JsonReader& document) {
  if (document.absent("pre_tokenizer")) return {};
  return PreTokenizer(document.object("pre_tokenizer"));
}

}  // namespace

struct Tokenizer::State {
  explicit State(const JsonReader& document)
      : vocabulary(document.object("model")),
        pre_tokenizer(read_pre_tokenizer(document)),
        bpe(document.object("model"), vocabulary, pre_tokenizer.is_byte_level()),
        added(read_added_tokens(document, vocabulary)),
        normalizer(read_normalizer(document)),
        raw_finder(select(added, false), normalizer),
        normalized_finder(select(added, true), normalizer),
        token_bytes(document, vocabulary, added, pre_tokenizer.is_byte_level()) {
    refuse_unless_normal(document, added, normalizer);
    refuse_unless_null(document, "truncation");
    refuse_unless_null(document, "padding");
    if (!document.absent("post_processor")) {
      check_post_processor(document.object("post_processor"));
    }
  }

  Vocabulary vocabulary;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  std::vector<AddedToken> added;
  Normalizer normalizer;
  AddedTokenFinder raw_finder;         // looks at the text as it stands,
  AddedTokenFinder normalized_finder;  // and at what the normalizer made of the rest
  TokenBytes token_bytes;

  void encode_words(std::string_view text, Bpe::Scratch& scratch,
                    std::vector<std::int32_t>& ids) const {
    std::deque<std::string> storage;
    for (const std::string_view word : pre_tokenizer.split(text, storage)) {
      bpe.encode(word, scratch, ids);
    }
  }
};

Tokenizer::Tokenizer(std::unique_ptr<const State> state) noexcept : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer::Tokenizer(const std::filesystem::path& file) {
  const std::string text = read_file(file, largest_file, "missing; expected a tokenizer.json");
  *this = parse(text, file.string());
}

Tokenizer Tokenizer::parse(std::string_view json, std::string_view name) {
  const nlohmann::json document = parse_json(json, name);
  return Tokenizer(std::make_unique<const State>(JsonReader(document, std::string(name))));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  return encode_marked(text, {});
}

const std::vector<AddedToken>& Tokenizer::added_tokens() const noexcept {
  return state_->added;
}

std::vector<std::int32_t> Tokenizer::encode_marked(std::string_view text,
                                                   const Marks& marks) const {
  std::string replaced;
  if (!utf8::is_valid(text)) text = replaced = utf8::replace_invalid(text);
  std::vector<std::int32_t> ids;
  Bpe::Scratch scratch;
  std::vector<TextPart> raw_parts;
  state_->raw_finder.split(text, raw_parts);
  for (const TextPart& raw : raw_parts) {
    if (raw.token) {
      ids.push_back(*raw.token);
      continue;
    }
    const std::string normalized = state_->normalizer.apply(raw.text);
    std::vector<TextPart> parts;
    state_->normalized_finder.split(normalized, parts);
    for (const TextPart& part : parts) {
      if (part.token) {
        ids.push_back(*part.token);
      } else if (marks.empty()) {
        state_->encode_words(part.text, scratch, ids);
      } else {
        state_->encode_words(without_marks(part.text, marks), scratch, ids);
      }
    }
  }
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  return state_->token_bytes.decode(ids, skip_special_tokens);
}

std::string Tokenizer::decode_bytes(std::span<const std::int32_t> ids,
                                    bool skip_special_tokens) const {
  return state_->token_bytes.decode_bytes(ids, skip_special_tokens);
}

std::optional<std::int32_t> Tokenizer::token_id(std::string_view token) const {
  for (const AddedToken& added : state_->added) {
    if (added.content == token) return added.id;
  }
  return state_->vocabulary.find(token);
}

std::int64_t Tokenizer::vocab_size() const noexcept {
  return state_->token_bytes.size();
}

}  // namespace fastdllm
