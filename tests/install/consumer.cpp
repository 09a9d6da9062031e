// Generates from the package that FASTDLLM_TEST_PACKAGE names; 77 = skipped, there is none.
#include <fastdllm/engine.hpp>

#include <cstdlib>
#include <iostream>

int main() try {
  const char* package = std::getenv("FASTDLLM_TEST_PACKAGE");
  if (package == nullptr) {
    std::cout << "skipped: FASTDLLM_TEST_PACKAGE names no package\n";
    return 77;
  }
  fastdllm::Engine engine(package, {.threads = 2});
  fastdllm::GenerationConfig config;
  config.max_new_tokens = 40;
  config.threshold = 0.9;
  config.ignore_eos = true;
  const std::vector<std::int32_t> prompt{1, 2, 3};
  const fastdllm::GenerationResult result = engine.generate(prompt, config);
  std::cout << engine.backend() << ": " << result.token_ids.size() << " tokens in "
            << result.num_passes << " passes\n";
  return result.token_ids.size() == 40 ? 0 : 1;
} catch (const std::exception& problem) {
  std::cerr << "consumer: " << problem.what() << '\n';
  return 1;
}
