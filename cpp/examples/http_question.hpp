// What a client of http_service may ask: JSON to a prompt or messages and their options.
#pragma once

#include <fastdllm/llm.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace http {

using nlohmann::json;  // an ordered_json takes quadratic time for many fields

[[noreturn]] inline void reject(const std::string& message) {
  throw fastdllm::Error(fastdllm::ErrorCode::bad_config, message);
}

struct Question {
  std::vector<fastdllm::Message> messages;
  std::string prompt;  // where there are no messages
  fastdllm::GenerationConfig config;
  fastdllm::TextOptions text;
  bool streams = false;
};

inline std::string as_string(const std::string& field, const json& value) {
  if (!value.is_string()) reject(field + " is " + value.type_name() + "; expected a string");
  return value.get<std::string>();
}

inline bool as_bool(const std::string& field, const json& value) {
  if (!value.is_boolean()) reject(field + " is " + value.type_name() + "; expected true or false");
  return value.get<bool>();
}

/// A JSON value as set_option() reads it: [1, 2] is "1,2", {"12": -1.5} is "12=-1.5".
inline std::string as_option(const std::string& field, const json& value) {
  if (value.is_null()) return "none";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_primitive()) return value.dump();
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (!item.is_number()) reject(field + " holds " + item.type_name() + "; expected numbers");
    text += (text.empty() ? "" : ",") + (value.is_object() ? key + "=" : "") + item.dump();
  }
  return text;
}

inline std::vector<fastdllm::Message> as_messages(const json& list) {
  if (!list.is_array() || list.empty()) reject("messages is empty or no list; expected messages");
  std::vector<fastdllm::Message> messages;
  for (const json& item : list) {
    if (!item.is_object() || item.size() != 2 || !item.contains("role") ||
        !item.contains("content")) {
      reject("messages holds something else; expected objects of role and content");
    }
    messages.push_back(
        {as_string("messages.role", item["role"]), as_string("messages.content", item["content"])});
  }
  return messages;
}

/// Errors: Error{bad_config} naming the field.
inline Question read_question(const std::string& body) {
  const json fields = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!fields.is_object()) reject("the body is no JSON object; expected prompt or messages");
  if (fields.contains("prompt") == fields.contains("messages")) {
    reject("the body has both or none of prompt and messages; expected one of them");
  }
  Question question;
  for (const auto& [name, value] : fields.items()) {
    if (name == "prompt") {
      question.prompt = as_string(name, value);
    } else if (name == "messages") {
      question.messages = as_messages(value);
    } else if (name == "raw") {
      question.text.raw = as_bool(name, value);
    } else if (name == "stream") {
      question.streams = as_bool(name, value);
    } else if (name == "stop" && value.is_array()) {
      for (const json& item : value) question.text.stop.push_back(as_string(name, item));
    } else if (name == "stop") {
      question.text.stop = {as_string(name, value)};
    } else {
      fastdllm::set_option(question.config, name, as_option(name, value));
    }
  }
  question.config = fastdllm::with_default_rule(question.config);
  return question;
}

}  // namespace http
