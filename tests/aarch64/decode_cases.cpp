// Decodes the shipped model's questions in many ways and prints the tokens, a line for each case:
// what one machine prints is what another one has to print. usage: decode_cases PACKAGE
#include <fastdllm/engine.hpp>
#include <iostream>

namespace {

using namespace fastdllm;
using Ids = std::vector<std::int32_t>;

// "Sam has 2 jars of 5 books and gives 4 away. How many books are left?", in chat format.
const Ids k_books{507, 508, 84,  82,  403, 509, 198, 198, 455, 287, 220, 17,  498, 347,
                  220, 20,  377, 292, 362, 220, 19,  421, 13,  275, 276, 377, 265, 283,
                  30,  510, 508, 64,  82,  82,  309, 83,  269, 83,  509, 198, 198};
// "Owen had 30 balls, bought 2 and lost 8. How many are left?"
const Ids k_balls{507, 508, 84,  82, 403, 509, 198, 198, 491, 350, 220, 18,  15,  382,
                  11,  451, 220, 17, 292, 431, 220, 23,  13,  275, 276, 265, 283, 30,
                  510, 508, 64,  82, 82,  309, 83,  269, 83,  509, 198, 198};

struct Case {
  std::string_view name;
  GenerationConfig config;
};

std::vector<Case> cases() {
  return {
      {"schedule", {.max_new_tokens = 32, .steps = 4, .cache = CacheMode::none}},
      {"prefix", {.max_new_tokens = 16, .block_length = 8, .steps = 4, .cache = CacheMode::prefix}},
      {"dual", {.max_new_tokens = 16, .block_length = 8, .cache = CacheMode::dual}},
      {"threshold", {.max_new_tokens = 16, .block_length = 8, .threshold = 0.999}},
      {"factor", {.max_new_tokens = 32, .factor = 1.0}},
      {"frechet", {.max_new_tokens = 32, .frechet = 0.25}},
      {"entropy bound",
       {.max_new_tokens = 32, .entropy_bound = 0.01, .remasking = Remasking::entropy}},
      {"margin",
       {.max_new_tokens = 16,
        .steps = 8,
        .cache = CacheMode::dual,
        .remasking = Remasking::margin}},
      {"random order",
       {.max_new_tokens = 32,
        .steps = 6,
        .cache = CacheMode::dual,
        .remasking = Remasking::random,
        .seed = 3}},
      {"sampled", {.max_new_tokens = 32, .threshold = 0.9, .temperature = 4.0, .seed = 11}},
      {"sampled from few",
       {.max_new_tokens = 24,
        .block_length = 8,
        .steps = 6,
        .cache = CacheMode::dual,
        .temperature = 5.0,
        .top_p = 0.99,
        .top_k = 20,
        .seed = 13}},
      {"guidance", {.max_new_tokens = 16, .steps = 1, .cfg_scale = 0.5}},
      {"deferred window", {.max_new_tokens = 32, .threshold = 0.9, .deferred_window = 16}},
  };
}

void print(std::string_view name, const GenerationResult& result) {
  std::cout << name << ": ";
  for (const std::int32_t id : result.token_ids) std::cout << id << ' ';
  std::cout << "| " << result.num_passes << " passes, " << name_of(result.finish_reason) << '\n';
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw Error(ErrorCode::bad_config, "usage: decode_cases PACKAGE");
  Engine engine(argv[1], {.threads = 2});
  print("a question", engine.generate(k_books, {.max_new_tokens = 32, .threshold = 0.9}));
  for (const Case& each : cases()) print(each.name, engine.generate(k_balls, each.config));

  // Two side by side: that they share passes changes nothing.
  const GenerationConfig dual{.max_new_tokens = 32, .steps = 4, .cache = CacheMode::dual};
  const Request books = engine.submit(k_books, dual);
  const Request balls = engine.submit(k_balls, dual);
  print("side by side", books.result());
  print("side by side", balls.result());

  Ids canvas = k_books;
  canvas.insert(canvas.end(), {356, 265, 220, 17, 289, 220, 20, 259});
  canvas.insert(canvas.end(), 12, engine.package().mask_token_id);
  canvas.insert(canvas.end(), {265, 283, 13});
  print("infill", engine.infill(canvas, {.threshold = 0.9}));
} catch (const std::exception& problem) {
  std::cerr << "decode_cases: " << problem.what() << '\n';
  return 1;
}
