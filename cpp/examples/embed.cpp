// Text in, text out: embed PACKAGE PROMPT
#include <fastdllm/llm.hpp>
#include <iostream>

int main(int argc, char** argv) try {
  fastdllm::LLM llm(argc == 3 ? argv[1]
                              : throw std::invalid_argument("usage: embed PACKAGE PROMPT"));
  const fastdllm::Completion answer = llm.generate(argv[2], {.threshold = 0.9});
  std::cout << answer.text << '\n';
} catch (const std::exception& problem) {
  std::cerr << "embed: " << problem.what() << '\n';
  return 1;
}
