// Asks the package that FASTDLLM_TEST_PACKAGE names a question; 77 = skipped, there is none.
#include <fastdllm/llm.hpp>

#include <cstdlib>
#include <iostream>
#include <string>

int main() try {
  const char* package = std::getenv("FASTDLLM_TEST_PACKAGE");
  if (package == nullptr) {
    std::cout << "skipped: FASTDLLM_TEST_PACKAGE names no package\n";
    return 77;
  }
  fastdllm::LLM llm(package);
  const fastdllm::Completion answer =
      llm.generate("Tom has 3 boxes of 4 apples and gives 5 away. How many apples are left?");
  std::cout << answer.text << '\n';
  return answer.text.find("#### 7") == std::string::npos ? 1 : 0;
} catch (const std::exception& problem) {
  std::cerr << "text_consumer: " << problem.what() << '\n';
  return 1;
}
