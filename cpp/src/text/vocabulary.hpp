// The `model.vocab` of a tokenizer.json: tokens, written in the alphabet of bytes, and their ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "support/json_reader.hpp"

namespace fastdllm {

/// Ids beyond this are refused: a table of tokens by id has this many places at most.
constexpr std::int64_t largest_token_id = (1 << 22) - 1;

class Vocabulary {
 public:
  /// model: the object that holds `vocab`. Errors: Error{bad_package}, also for an id that two
  /// tokens have.
  explicit Vocabulary(const JsonReader& model);

  [[nodiscard]] std::optional<std::int32_t> find(std::string_view token) const;
  /// Tokens, which is less than the largest id where ids have gaps.
  [[nodiscard]] std::int64_t count() const noexcept {
    return static_cast<std::int64_t>(ids_.size());
  }
  [[nodiscard]] auto begin() const noexcept { return ids_.begin(); }
  [[nodiscard]] auto end() const noexcept { return ids_.end(); }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
};

}  // namespace fastdllm
