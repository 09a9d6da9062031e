// One cold start, for cold_start.py: cold_start PACKAGE THREADS TEXT(0 or 1). Prints milliseconds
// since main() began.
#include <fastdllm/llm.hpp>

#include <chrono>
#include <iostream>
#include <optional>
#include <string>

int main(int argc, char** argv) try {
  if (argc != 4) {
    std::cerr << "usage: cold_start PACKAGE THREADS TEXT\n";
    return 2;
  }
  const auto start = std::chrono::steady_clock::now();
  const auto milliseconds = [&] {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
  };
  fastdllm::Engine engine(argv[1], {.threads = std::stoi(argv[2])});
  const double engine_ms = milliseconds();
  std::optional<fastdllm::TextCodec> codec;
  if (std::string(argv[3]) == "1") codec.emplace(argv[1]);
  const double text_ms = milliseconds();
  std::vector<std::int32_t> prompt;
  for (std::int32_t id = 0; id < 40; ++id) prompt.push_back(id);
  if (codec) prompt = codec->tokenizer().encode("Tom has 3 boxes of 4 apples and gives 5 away.");
  const auto result = engine.generate(prompt, {.max_new_tokens = 32, .steps = 1});
  std::cout << "{\"engine_ms\": " << engine_ms << ", \"text_ms\": " << text_ms - engine_ms
            << ", \"first_pass_ms\": " << milliseconds() - text_ms
            << ", \"passes\": " << result.num_passes << ", \"backend\": \"" << engine.backend()
            << "\"}\n";
} catch (const std::exception& problem) {
  std::cerr << "cold_start: " << problem.what() << '\n';
  return 1;
}
