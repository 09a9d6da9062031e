// Token ids in, token ids out, where text is made elsewhere: embed_ids PACKAGE ID [ID ...]
#include <fastdllm/engine.hpp>
#include <iostream>

int main(int argc, char** argv) try {
  if (argc < 2)
    throw fastdllm::Error(fastdllm::ErrorCode::bad_config, "usage: embed_ids PACKAGE [ID ...]");
  fastdllm::Engine engine(argv[1], {.threads = 2});
  std::vector<std::int32_t> prompt;
  for (int i = 2; i < argc; ++i) prompt.push_back(std::stoi(argv[i]));

  const fastdllm::GenerationConfig config{.max_new_tokens = 64, .threshold = 0.9};
  const fastdllm::GenerationResult result = engine.generate(prompt, config);

  for (const std::int32_t id : result.token_ids) std::cout << id << ' ';
  std::cout << '\n' << result.num_passes << " passes, " << name_of(result.finish_reason) << '\n';
} catch (const std::exception& problem) {
  std::cerr << "embed_ids: " << problem.what() << '\n';
  return 1;
}
