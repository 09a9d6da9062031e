// fastdllm::text for the tests in Python: JSON lines in, JSON lines out.
//   text_tool PACKAGE < requests
// {"messages": [{"role": ..., "content": ...}]} gives {"text": ...} or {"error": ...},
// {"messages": ..., "encode": true} gives {"ids": [...]}; both take "variables", a JSON text;
// {"pushes": [[positions, token_ids], ...], "stop_ids": [...], "stop": [...]} gives what a
// TextStream gave: {"pieces": [...], "text": ..., "stop": ..., "tokens": [of the text, with the
// stop string]}.
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "fastdllm/text.hpp"

namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

json render(const fastdllm::TextCodec& codec, const json& request) {
  std::vector<fastdllm::Message> messages;
  for (const json& message : request.at("messages")) {
    messages.push_back({message.at("role"), message.at("content")});
  }
  const std::string variables = request.value("variables", std::string());
  if (request.contains("encode")) return {{"ids", codec.encode_chat(messages, variables)}};
  return {{"text", codec.render_chat(messages, variables)}};
}

json stream(const fastdllm::TextCodec& codec, const json& request) {
  fastdllm::TextStream text(codec, request.at("stop_ids").get<Ids>(),
                            request.at("stop").get<std::vector<std::string>>());
  json pieces = json::array();
  for (const json& push : request.at("pushes")) {
    pieces.push_back(text.push(push.at(0).get<Ids>(), push.at(1).get<Ids>()));
  }
  pieces.push_back(text.finish());
  const std::string stop = text.stop().value_or("");
  return {{"pieces", std::move(pieces)},
          {"text", text.text()},
          {"stop", text.stop() ? json(stop) : json()},
          {"tokens", {text.tokens_of(text.text()), text.tokens_of(text.text() + stop)}}};
}

json answer(const fastdllm::TextCodec& codec, const json& request) {
  try {
    return request.contains("messages") ? render(codec, request) : stream(codec, request);
  } catch (const std::exception& problem) {
    return {{"error", problem.what()}};
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) return 2;
  try {
    const fastdllm::TextCodec codec{std::filesystem::path(arguments[1])};
    for (std::string line; std::getline(std::cin, line);) {
      std::cout << answer(codec, json::parse(line)) << '\n';
    }
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
  return 0;
}
