// The `normalizer` of a tokenizer.json: Unicode's NFC, and texts that take the place of others.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/json_reader.hpp"
#include "text/regex.hpp"

namespace fastdllm {

/// Unicode's canonical composition. text: UTF-8.
[[nodiscard]] std::string to_nfc(std::string_view text);

/// What a `Replace` does: each match of its pattern becomes its content.
class Replacement {
 public:
  /// Errors: Error{bad_package}.
  explicit Replacement(const JsonReader& description);
  [[nodiscard]] std::string apply(std::string_view text) const;

 private:
  Regex pattern_;
  std::string content_;
};

class Normalizer {
 public:
  /// Changes nothing.
  Normalizer() = default;
  /// Errors: Error{bad_package} for a kind that is not implemented.
  explicit Normalizer(const JsonReader& description);

  [[nodiscard]] std::string apply(std::string_view text) const;

 private:
  void add(const JsonReader& description);

  std::vector<std::optional<Replacement>> steps_;  // none: NFC
};

}  // namespace fastdllm
