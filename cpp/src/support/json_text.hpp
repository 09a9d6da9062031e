// Parses JSON from an untrusted file: one error that names it, and a bound on nesting, which costs
// memory a hundred times its bytes.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {

constexpr int deepest_json = 64;

/// Arrays and objects inside each other, at most.
[[nodiscard]] inline int json_depth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') ++at;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

/// name: the file, for messages. Errors: Error{bad_package}.
[[nodiscard]] inline nlohmann::json parse_json(std::string_view text, std::string_view name) {
  // The parser takes a NUL as the end, whatever follows.
  const std::size_t nul = text.find('\0');
  if (nul != std::string_view::npos) {
    throw Error(ErrorCode::bad_package, concat(name, ": not valid JSON: byte ", nul, " is NUL"));
  }
  const int depth = json_depth(text);
  if (depth > deepest_json) {
    throw Error(ErrorCode::bad_package,
                concat(name, ": is nested ", depth, " deep; expected at most ", deepest_json));
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& problem) {
    // The message quotes what was read last, however long and whatever bytes that was.
    std::string reason = std::string(problem.what()).substr(0, 160);
    for (char& c : reason) c = c >= ' ' && c <= '~' ? c : '?';
    throw Error(ErrorCode::bad_package, concat(name, ": not valid JSON: ", reason));
  }
}

}  // namespace fastdllm
