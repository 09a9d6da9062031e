// Text in, text out: embed PACKAGE PROMPT
#include <fastdllm/llm.hpp>
#include <iostream>

int main(int argc, char** argv) try {
  if (argc != 3) throw std::invalid_argument("usage: embed PACKAGE PROMPT");
  fastdllm::LLM llm(argv[1]);
  std::cout << llm.generate(argv[2]).text << '\n';
} catch (const std::exception& problem) {
  std::cerr << "embed: " << problem.what() << '\n';
  return 1;
}
