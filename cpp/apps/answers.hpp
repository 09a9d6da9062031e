// Answers on a command line: waiting for them, Ctrl-C included, and what is shown of them.
#pragma once

#include <chrono>
#include <fastdllm/error.hpp>
#include <fastdllm/llm.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "console.hpp"

namespace fastdllm::cli {

/// Waits until a Request or TextRequest has ended. Errors: Interrupted by Ctrl-C, which cancels it.
template <typename AnyRequest>
void wait_for_end(const AnyRequest& request) {
  const InterruptGuard guard;
  while (!request.wait_for(std::chrono::milliseconds(20))) {
    if (InterruptGuard::interrupted()) request.cancel();
  }
  if (InterruptGuard::interrupted()) throw Interrupted();
}

/// Waits for a Request or TextRequest; Ctrl-C cancels it, and it ends with its next pass.
template <typename AnyRequest>
auto wait_or_cancel(const AnyRequest& request) {
  const InterruptGuard guard;
  while (!request.wait_for(std::chrono::milliseconds(20))) {
    if (InterruptGuard::interrupted()) request.cancel();
  }
  return request.result();
}

/// The same, after which Ctrl-C is an Interrupted.
template <typename AnyRequest>
auto wait_or_throw(const AnyRequest& request) {
  auto result = wait_or_cancel(request);
  if (InterruptGuard::interrupted()) throw Interrupted();
  return result;
}

/// Submits `count` requests, submit(0) first; where the engine has no place for one, waits for the
/// oldest running one. An error of one is thrown before anything is printed.
template <typename Submit>
auto submit_all(std::size_t count, const Submit& submit) {
  std::vector<decltype(submit(0))> requests;
  std::size_t oldest = 0;
  while (requests.size() < count) {
    try {
      requests.push_back(submit(requests.size()));
    } catch (const Error& problem) {
      if (problem.code() != ErrorCode::overloaded || oldest == requests.size()) throw;
      wait_for_end(requests[oldest++]);
    }
  }
  return requests;
}

/// Prints an answer as it becomes final; it is cancelled when nobody reads.
class Printer {
 public:
  /// Errors of printing end the request that calls it. This object outlives it.
  [[nodiscard]] TextCallback callback();
  /// What is left of the text, and a newline.
  void finish(const Completion& completion) const;

 private:
  std::size_t printed_ = 0;  // bytes
};

/// Text with gaps, filled. The whole text is the completion's.
struct Infilled {
  Completion completion;
  std::vector<std::string> filled;  ///< the text of each gap
};

/// "There are {6} apples." with gaps of so many tokens; `prompt` stands before it, if given.
/// Errors: Error{bad_config}.
[[nodiscard]] Infilled infill(LLM& llm, std::string_view text, const std::string* prompt, bool raw,
                              const GenerationConfig& config);

/// What Python's command line prints of an answer.
[[nodiscard]] nlohmann::ordered_json to_json(const Completion& completion,
                                             const std::vector<std::string>& filled,
                                             const GenerationConfig& config);
[[nodiscard]] nlohmann::ordered_json to_json(const GenerationResult& result,
                                             std::size_t prompt_tokens,
                                             const GenerationConfig& config);

}  // namespace fastdllm::cli
