// What a client of http_service may ask: JSON to a prompt or messages and their options.
#pragma once

#include <httplib.h>

#include <charconv>
#include <fastdllm/llm.hpp>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "http_names.hpp"

namespace http {

using nlohmann::json;  // an ordered_json takes quadratic time for many fields

[[noreturn]] inline void reject(const std::string& message) {
  throw fastdllm::Error(fastdllm::ErrorCode::bad_config, message);
}

constexpr std::size_t largest_body = 1 << 20;

/// Where a message may hold bytes that are no UTF-8, such as those of a path.
inline void set_error(httplib::Response& response, int status, const std::string& message) {
  const std::string text =
      json{{"error", message}}.dump(-1, ' ', false, json::error_handler_t::replace);
  response.status = status;
  response.set_content(text, "application/json");
}

/// What httplib refuses by itself has no text yet.
inline void explain(const httplib::Request& request, httplib::Response& response) {
  if (!response.body.empty()) return;
  const bool too_large = response.status == 413;
  set_error(response, response.status,
            too_large ? "the body is larger than " + std::to_string(largest_body) + " bytes"
                      : request.method + " " + request.path + " failed");
}

/// Before the body is read: httplib limits a body only by its Content-Length, neither one that
/// comes without it nor what it unpacks. allowed: names beside those of this machine.
inline httplib::Server::HandlerResponse admit(const httplib::Request& request,
                                              httplib::Response& response,
                                              const std::set<std::string>& allowed) {
  const bool posts = request.method == "POST";
  if (const Refusal refusal = check_names(request, allowed); refusal.status != 0) {
    set_error(response, refusal.status, refusal.message);
  } else if (!posts && request.method != "GET" && request.method != "HEAD") {
    set_error(response, 405, "the method is not served; expected GET or POST");
  } else if (request.has_header("Content-Encoding")) {
    set_error(response, 415, "Content-Encoding is not served; send the body as it is");
  } else if (request.has_header("Transfer-Encoding") ||
             (posts && !request.has_header("Content-Length"))) {
    set_error(response, 411, "the body has no known length; send Content-Length");
  } else if (posts && !is_json(request)) {
    set_error(response, 415,
              "the body is not declared as JSON; send Content-Type: application/json");
  } else {
    // Answers are always whole, which httplib has no setting for.
    const_cast<httplib::Request&>(request).ranges.clear();
    return httplib::Server::HandlerResponse::Unhandled;
  }
  return httplib::Server::HandlerResponse::Handled;
}

inline int read_integer(const std::string& name, const std::string& text, int least, int most) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < least || value > most) {
    reject(name + " is '" + text + "'; expected an integer from " + std::to_string(least) + " to " +
           std::to_string(most));
  }
  return value;
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
    if (value.is_object() && (key.empty() || key.find_first_not_of("0123456789") != key.npos)) {
      reject(field + " has the key " + json(key).dump() + "; expected token ids");
    }
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
  if (body.size() > largest_body) reject("the body is too large");
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
