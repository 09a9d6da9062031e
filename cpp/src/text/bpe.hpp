// Byte pair encoding: joins neighbours in a word, the pair of the lowest rank first.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "support/json_reader.hpp"
#include "text/vocabulary.hpp"

namespace fastdllm {

class Bpe {
 public:
  /// model: a tokenizer.json's. vocabulary: of the same, borrowed. is_byte_level: its tokens are
  /// written in the alphabet of bytes; else in characters, and a character without a token is
  /// its bytes, "<0x41>". Errors: Error{bad_package}, also for characters without such tokens.
  Bpe(const JsonReader& model, const Vocabulary& vocabulary, bool is_byte_level);

  /// Room for work, so that a text's words share it.
  struct Symbol {
    std::int32_t id = 0;
    std::int32_t previous = -1,
                 next = -1;  // -1: none; a symbol that was joined to another has id -1
  };
  struct Candidate {
    std::int32_t rank = 0, at = 0, id = 0;
  };
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue;
  };

  /// Appends a word's ids. word: UTF-8 where it is of characters. A byte without a token is left
  /// out, as the `tokenizers` library does. Takes n log n.
  void encode(std::string_view word, Scratch& scratch, std::vector<std::int32_t>& ids) const;

 private:
  struct Merge {
    std::uint64_t pair = 0;
    std::int32_t rank = -1;  // -1: a free place
    std::int32_t id = 0;
  };
  void read_merges(const JsonReader& model);
  void add(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t id);
  [[nodiscard]] std::size_t place_of(std::uint64_t pair) const noexcept;
  [[nodiscard]] const Merge* find(std::int32_t left, std::int32_t right) const noexcept;
  void consider(std::int32_t left, Scratch& scratch) const;
  void join(Scratch& scratch) const;

  void read_bytes(const JsonReader& model);
  void begin(std::string_view word, std::vector<Symbol>& symbols) const;

  const Vocabulary* vocabulary_;
  bool is_byte_level_;
  bool ignore_merges_ = false;
  std::array<std::int32_t, 256> byte_ids_{};  // -1: no token
  std::vector<Merge> merges_;                 // a hash table, at most half full
};

}  // namespace fastdllm
