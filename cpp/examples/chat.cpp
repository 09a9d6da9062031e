// A conversation, a turn per line of standard input: chat PACKAGE
#include <fastdllm/llm.hpp>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 2) throw std::invalid_argument("usage: chat PACKAGE");
  fastdllm::LLM llm(argv[1]);
  const auto print = [](const fastdllm::TextEvent& event) {
    std::cout << event.piece << std::flush;  // text as it becomes final
    return true;
  };

  std::vector<fastdllm::Message> messages;
  for (std::string line; std::getline(std::cin, line);) {
    messages.push_back({"user", line});
    const fastdllm::Completion answer =
        llm.chat(messages, fastdllm::default_text_config(), {}, print);
    std::cout << '\n';
    messages.push_back({"assistant", answer.text});
  }
} catch (const std::exception& problem) {
  std::cerr << "chat: " << problem.what() << '\n';
  return 1;
}
