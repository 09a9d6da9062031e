// A prompt per line of standard input, answered side by side, printed in their order: batch PACKAGE
#include <fastdllm/llm.hpp>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 2) throw std::invalid_argument("usage: batch PACKAGE");
  fastdllm::LLM llm(argv[1], {}, {.max_batch = 16, .max_waiting = 10000});
  const fastdllm::GenerationConfig config{.max_new_tokens = 64, .threshold = 0.9};

  std::vector<fastdllm::TextRequest> requests;  // they run while lines are read
  for (std::string line; std::getline(std::cin, line);)
    requests.push_back(llm.submit(line, config));
  for (const fastdllm::TextRequest& request : requests) {
    const fastdllm::Completion answer = request.result();
    std::cout << answer.text << "\n[" << answer.num_passes << " passes]\n";
  }
} catch (const std::exception& problem) {
  std::cerr << "batch: " << problem.what() << '\n';
  return 1;
}
