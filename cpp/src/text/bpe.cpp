#include "text/bpe.hpp"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "text/byte_alphabet.hpp"
#include "text/utf8.hpp"

namespace fastdllm {
namespace {

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) |
         static_cast<std::uint32_t>(right);
}

// The end of the queue is the best: the lowest rank, of equal ones the left-most.
bool worse(const Bpe::Candidate& a, const Bpe::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
}

void refuse_unless_absent_or(const JsonReader& model, std::string_view key,
                             const nlohmann::json& harmless) {
  if (model.absent(key) || model.members().at(key) == harmless) return;
  model.fail(key, concat("null or ", harmless.dump()), model.members().at(key));
}

}  // namespace

Bpe::Bpe(const JsonReader& model, const Vocabulary& vocabulary, bool is_byte_level)
    : vocabulary_(&vocabulary), is_byte_level_(is_byte_level) {
  // Older files name no type.
  if (model.has("type")) (void)model.one_of("type", std::array<std::string_view, 1>{"BPE"});
  refuse_unless_absent_or(model, "dropout", 0.0);
  refuse_unless_absent_or(model, "continuing_subword_prefix", "");
  refuse_unless_absent_or(model, "end_of_word_suffix", "");
  if (!model.absent("ignore_merges")) ignore_merges_ = model.boolean("ignore_merges");
  read_bytes(model);
  read_merges(model);
}

void Bpe::read_bytes(const JsonReader& model) {
  bool complete = true;
  for (std::size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const auto value = static_cast<unsigned char>(byte);
    const auto id = vocabulary_->find(
        is_byte_level_ ? to_alphabet(std::string(1, static_cast<char>(value))) : byte_token(value));
    byte_ids_[byte] = id.value_or(-1);
    complete = complete && id.has_value();
  }
  if (!is_byte_level_) {
    if (model.absent("byte_fallback") || !model.boolean("byte_fallback") || !complete) {
      throw Error(ErrorCode::bad_package,
                  concat(model.where(),
                         " is neither of bytes (no ByteLevel in the pre_tokenizer) nor has "
                         "byte_fallback and a token for each byte; expected one of the two"));
    }
    return;
  }
  // Neither is ever used where every byte has a token.
  if (!complete) {
    refuse_unless_absent_or(model, "unk_token", nullptr);
    refuse_unless_absent_or(model, "byte_fallback", false);
  }
}

namespace {

// Of "a b" or ["a", "b"], borrowed; empty ones for anything else.
std::pair<std::string_view, std::string_view> read_merge(const nlohmann::json& merge) {
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos) return {};
    return {text.substr(0, space), text.substr(space + 1)};
  }
  if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) {
    return {};
  }
  return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
}

}  // namespace

void Bpe::read_merges(const JsonReader& model) {
  const nlohmann::json& merges = model.array("merges");
  merges_.resize(std::bit_ceil(2 * merges.size() + 2));
  std::int32_t rank = 0;
  std::string joined;
  for (const nlohmann::json& merge : merges) {
    const auto [left, right] = read_merge(merge);
    if (left == "#version:") continue;  // a line of older files
    const auto where = [&] { return concat("merges[", rank, "]"); };
    if (left.empty() || right.empty()) model.fail(where(), "two tokens", merge);
    joined.assign(left).append(right);
    const auto left_id = vocabulary_->find(left);
    const auto right_id = vocabulary_->find(right);
    const auto id = vocabulary_->find(joined);
    if (!left_id || !right_id || !id) {
      model.fail(where(), "two tokens that are in the vocabulary, joined too", merge);
    }
    add(*left_id, *right_id, rank++, *id);
  }
}

std::size_t Bpe::place_of(std::uint64_t pair) const noexcept {
  std::uint64_t hash = pair * 0x9E3779B97F4A7C15U;  // Fibonacci hashing
  hash ^= hash >> 32;
  const std::size_t mask = merges_.size() - 1;
  std::size_t place = static_cast<std::size_t>(hash) & mask;
  while (merges_[place].rank >= 0 && merges_[place].pair != pair) place = (place + 1) & mask;
  return place;
}

void Bpe::add(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t id) {
  const std::uint64_t pair = pair_of(left, right);
  merges_[place_of(pair)] = {pair, rank, id};
}

const Bpe::Merge* Bpe::find(std::int32_t left, std::int32_t right) const noexcept {
  const Merge& merge = merges_[place_of(pair_of(left, right))];
  return merge.rank < 0 ? nullptr : &merge;
}

// Puts the pair of a symbol and the next one into the queue, if the two may be joined.
void Bpe::consider(std::int32_t left, Scratch& scratch) const {
  const Symbol& symbol = scratch.symbols[left];
  if (symbol.next < 0) return;
  const Merge* merge = find(symbol.id, scratch.symbols[symbol.next].id);
  if (merge == nullptr) return;
  scratch.queue.push_back({merge->rank, left, merge->id});
  std::push_heap(scratch.queue.begin(), scratch.queue.end(), worse);
}

void Bpe::join(Scratch& scratch) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  const auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t at = 0; at < count; ++at) consider(at, scratch);
  while (!scratch.queue.empty()) {
    std::pop_heap(scratch.queue.begin(), scratch.queue.end(), worse);
    const Candidate best = scratch.queue.back();
    scratch.queue.pop_back();
    Symbol& left = symbols[best.at];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // What was queued is out of date when one of the two was joined to another since.
    const Merge* merge = find(left.id, right.id);
    if (merge == nullptr || merge->id != best.id) continue;
    left.id = best.id;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = best.at;
    right.id = -1;
    if (left.previous >= 0) consider(left.previous, scratch);
    consider(best.at, scratch);
  }
}

// Puts a word's smallest tokens down.
void Bpe::begin(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.clear();
  while (!word.empty()) {
    const std::size_t length = is_byte_level_ ? 1 : utf8::first(word).length;
    const std::string_view character = word.substr(0, length);
    word.remove_prefix(length);
    const auto known = is_byte_level_ ? std::nullopt : vocabulary_->find(character);
    if (known) {
      symbols.push_back({.id = *known});
      continue;
    }
    for (const char byte : character) {
      const std::int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
      if (id >= 0) symbols.push_back({.id = id});
    }
  }
}

void Bpe::encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const {
  if (ignore_merges_) {
    const auto id = is_byte_level_ ? vocabulary_->find(to_alphabet(word)) : vocabulary_->find(word);
    if (id) {
      ids.push_back(*id);
      return;
    }
  }
  begin(word, scratch.symbols);
  const auto count = static_cast<std::int32_t>(scratch.symbols.size());
  for (std::int32_t at = 0; at < count; ++at) {
    scratch.symbols[at].previous = at - 1;
    scratch.symbols[at].next = at + 1 < count ? at + 1 : -1;
  }
  join(scratch);
  for (const Symbol& symbol : scratch.symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

}  // namespace fastdllm
