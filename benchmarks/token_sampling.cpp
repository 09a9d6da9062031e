// What top_k and top_p cost in a sampled pass of 32 rows of 126,464 logits: the filter by a sort of
// the whole vocabulary, by selection as the engine has it, and the whole proposal of tokens.
//
//     g++ -O3 -std=c++20 -ffp-contract=off -Icpp/src -Icpp/include -Itests/cpp -o
//     build/token_sampling
//         benchmarks/token_sampling.cpp cpp/src/rules/sampling.cpp cpp/src/rules/token_filter.cpp
//     build/token_sampling
//
// Milliseconds per pass, the median of 5; normal logits of a small and a large spread, for rows
// that are hardly and that are nearly decided.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "plain_filter.hpp"
#include "rules/sampling.hpp"

namespace {

using namespace fastdllm;

constexpr std::size_t num_rows = 32;
constexpr std::size_t vocab_size = 126464;

template <typename Run>
double median_ms(const Run& run) {
  std::vector<double> times;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t row = 0; row < num_rows; ++row) run(row);
    const std::chrono::duration<double, std::milli> passed =
        std::chrono::steady_clock::now() - start;
    times.push_back(passed.count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main() {
  struct Case {
    const char* name;
    double top_p;
    std::int64_t top_k;
  };
  double sum = 0.0;  // of what is computed, so that nothing is left out
  std::printf("%-8s%-24s%10s%10s%8s%10s\n", "spread", "filter", "sorted", "selected", "ratio",
              "proposal");
  for (const float spread : {1.0F, 4.0F}) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0F, spread);
    std::vector<float> logits(num_rows * vocab_size);
    for (float& logit : logits) logit = normal(random);
    const auto row_of = [&](std::size_t row) {
      return std::span<const float>(logits).subspan(row * vocab_size, vocab_size);
    };
    for (const Case& c : {Case{"top_k 50", 1.0, 50}, Case{"top_p 0.95", 0.95, 0},
                          Case{"top_p 0.95, top_k 50", 0.95, 50}}) {
      const TokenFilter::Options options{
          .mask_token_id = 126336, .temperature = 1.0, .top_p = c.top_p, .top_k = c.top_k};
      TokenFilter filter(options);
      TokenSampler sampler({.mask_token_id = options.mask_token_id,
                            .temperature = options.temperature,
                            .top_p = c.top_p,
                            .top_k = c.top_k});
      const double sorted = median_ms(
          [&](std::size_t row) { sum += testing::sorted_filter(row_of(row), options)[0] > 0.0F; });
      const double selected =
          median_ms([&](std::size_t row) { sum += filter.keep(row_of(row))[0] > 0.0F; });
      const double proposal = median_ms([&](std::size_t row) {
        sum +=
            sampler.propose(row_of(row), {.position = static_cast<std::int64_t>(row)}).confidence;
      });
      std::printf("%-8.0f%-24s%10.1f%10.1f%8.1f%10.1f\n", double{spread}, c.name, sorted, selected,
                  sorted / selected, proposal);
    }
  }
  return sum < 0.0 ? 1 : 0;
}
