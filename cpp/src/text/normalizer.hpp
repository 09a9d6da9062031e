// The `normalizer` of a tokenizer.json: none, or Unicode's NFC.
#pragma once

#include <string>
#include <string_view>

#include "support/json_reader.hpp"

namespace fastdllm {

/// Unicode's canonical composition. text: UTF-8.
[[nodiscard]] std::string to_nfc(std::string_view text);

class Normalizer {
 public:
  /// Changes nothing.
  Normalizer() = default;
  /// Errors: Error{bad_package} for a kind that is not implemented.
  explicit Normalizer(const JsonReader& description);

  [[nodiscard]] std::string apply(std::string_view text) const {
    return is_nfc_ ? to_nfc(text) : std::string(text);
  }

 private:
  bool is_nfc_ = false;
};

}  // namespace fastdllm
