// Generates from the package that FASTDLLM_TEST_PACKAGE names; 77 = skipped, there is none.
#include <fastdllm/version.h>
#include <fastdllm/engine.hpp>

#include <cstdlib>
#include <iostream>
#include <string_view>

namespace {

// The type of an error that was thrown inside the library is known outside of it.
bool errors_are_caught() {
  try {
    const fastdllm::Engine engine("/nowhere");
  } catch (const fastdllm::Error& error) {
    return error.code() == fastdllm::ErrorCode::bad_package;
  }
  return false;
}

}  // namespace

int main() try {
  if (std::string_view(fastdllm::version()) != FASTDLLM_VERSION || !errors_are_caught()) return 1;
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
