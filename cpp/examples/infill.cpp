// A gap in a text: infill PACKAGE PROMPT BEFORE TOKENS AFTER. What is given never changes.
#include <fastdllm/llm.hpp>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) try {
  if (argc != 6) throw std::invalid_argument("usage: infill PACKAGE PROMPT BEFORE TOKENS AFTER");
  fastdllm::LLM llm(argv[1]);
  const fastdllm::Tokenizer& tokenizer = llm.codec().tokenizer();

  std::vector<std::int32_t> canvas = llm.encode(argv[2]);
  const std::size_t start = canvas.size();
  const auto add = [&](const std::vector<std::int32_t>& ids) {
    canvas.insert(canvas.end(), ids.begin(), ids.end());
  };
  add(llm.encode(argv[3], true));
  add(std::vector(std::stoul(argv[4]), llm.engine().package().mask_token_id));
  add(llm.encode(argv[5], true));

  const fastdllm::GenerationResult filled = llm.engine().infill(canvas, {.threshold = 0.9});
  std::cout << tokenizer.decode(std::span(filled.token_ids).subspan(start)) << '\n';
} catch (const std::exception& problem) {
  std::cerr << "infill: " << problem.what() << '\n';
  return 1;
}
