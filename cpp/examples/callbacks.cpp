// A look at every pass of an answer: callbacks PACKAGE PROMPT
#include <fastdllm/llm.hpp>
#include <iostream>

int main(int argc, char** argv) try {
  if (argc != 3) throw std::invalid_argument("usage: callbacks PACKAGE PROMPT");
  fastdllm::LLM llm(argv[1]);

  const fastdllm::GenerationConfig config{.max_new_tokens = 64, .threshold = 0.9};
  const auto show = [](const fastdllm::TextEvent& event) {
    std::cout << "pass " << event.commit.step + 1 << ": " << event.commit.positions.size()
              << " positions; final so far: " << event.text << '\n';
    return true;  // false ends the answer
  };
  const fastdllm::TextRequest request = llm.submit(argv[2], config, {.stop = {"####"}}, show);
  const fastdllm::Completion answer = request.result();

  std::cout << name_of(answer.finish_reason) << ": " << answer.text << '\n';
} catch (const std::exception& problem) {
  std::cerr << "callbacks: " << problem.what() << '\n';
  return 1;
}
