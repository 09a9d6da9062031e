// fastdllm::Tokenizer for the tests in Python: JSON lines in, JSON lines out.
//   tokenizer_tool tokenizer.json < requests
// {"encode": "text"} gives {"ids": [...]}; {"decode": [...], "skip": true} gives {"text": "..."};
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fastdllm/tokenizer.hpp"

namespace {

nlohmann::json answer(const fastdllm::Tokenizer& tokenizer, const nlohmann::json& request) {
  try {
    if (request.contains("encode")) {
      return {{"ids", tokenizer.encode(request.at("encode").get<std::string>())}};
    }
    const auto ids = request.at("decode").get<std::vector<std::int32_t>>();
    return {{"text", tokenizer.decode(ids, request.at("skip").get<bool>())}};
  } catch (const std::exception& problem) {
    return {{"error", problem.what()}};
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) return 2;
  try {
    const fastdllm::Tokenizer tokenizer{std::filesystem::path(arguments[1])};
    std::cout << nlohmann::json{{"vocab_size", tokenizer.vocab_size()}} << '\n';
    for (std::string line; std::getline(std::cin, line);) {
      std::cout << answer(tokenizer, nlohmann::json::parse(line)) << '\n';
    }
  } catch (const std::exception& problem) {
    std::cout << nlohmann::json{{"error", problem.what()}} << '\n';
    return 1;
  }
  return 0;
}
