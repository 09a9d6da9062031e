// The `normalizer` of a tokenizer.json: none, Unicode's four forms, or several in a row.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "json_reader.hpp"

namespace fastdllm {

class Normalizer {
 public:
  /// Changes nothing.
  Normalizer() = default;
  /// Errors: Error{bad_package} for a kind that is not implemented.
  explicit Normalizer(const JsonReader& description);

  [[nodiscard]] bool empty() const noexcept { return options_.empty(); }
  /// text: UTF-8.
  [[nodiscard]] std::string apply(std::string_view text) const;

 private:
  void add(const JsonReader& description);

  std::vector<int> options_;  // utf8proc's, of each form in turn
};

}  // namespace fastdllm
