// Requests that are too large are told what does not fit, before anything is allocated.
#include "loop/request_memory.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "cache/canvas.hpp"
#include "fastdllm/engine.hpp"
#include "loop/unmask_loop.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

constexpr std::int64_t most = INT32_MAX;

PackageInfo endless(PackageInfo package = scripted_package()) {
  package.max_context_length = most;
  return package;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_config);
    return error.what();
  }
  return "";
}

TEST(RequestMemory, TheCanvasThatDoesNotFitIsNamedWithNumbers) {
  const GenerationConfig config{.max_new_tokens = 1'000'000};
  const RequestMemory memory = memory_of_prompt(endless(), config, 3);
  EXPECT_EQ(error_of([&] { require_canvas_memory(memory, 29'000'087); }), "");
  EXPECT_EQ(error_of([&] { require_canvas_memory(memory, 29'000'086); }),
            "max_new_tokens is 1000000 behind a prompt of 3 tokens: the request needs 29000087 "
            "bytes of memory for its canvas; expected at most half of the machine's, 29000086");
  EXPECT_EQ(error_of([&] { refuse_memory(memory); }),
            "max_new_tokens is 1000000 behind a prompt of 3 tokens: the request needs 29000087 "
            "bytes of memory for its canvas; there are not");
}

// What is told beforehand is what the request holds.
void expect_the_loops(const PackageInfo& package, const GenerationConfig& config,
                      std::int64_t given) {
  const std::vector<std::int32_t> prompt(static_cast<std::size_t>(given), 1);
  Canvas canvas(prompt, config.max_new_tokens, layout_of(package, config), package.mask_token_id);
  const UnmaskLoop loop(package, std::move(canvas), config, false, {});
  const RequestMemory memory = memory_of_prompt(package, config, given);
  EXPECT_EQ(memory.cache.rows, loop.max_cached_rows());
  EXPECT_EQ(memory.cache.batch, loop.batch());

  std::vector<std::int32_t> ids = prompt;
  ids.insert(ids.end(), static_cast<std::size_t>(config.max_new_tokens), package.mask_token_id);
  ids.push_back(1);
  Canvas gap(ids, layout_of(package, config), package.mask_token_id);
  const UnmaskLoop infilling(package, std::move(gap), config, true, {});
  EXPECT_EQ(memory_of_canvas(package, config, ids).cache.rows, infilling.max_cached_rows());
}

TEST(RequestMemory, ItIsWhatTheRequestMayComeToHold) {
  using enum CacheMode;
  for (const PackageInfo& package : {endless(), endless(block_causal_package())}) {
    for (const CacheMode cache : {none, prefix, dual, automatic}) {
      for (const std::int64_t new_tokens : {1, 7, 8, 9, 31, 32, 33, 100, 1000}) {
        for (const std::int64_t block_length : {1, 4, 8, 32, 500}) {
          for (const std::int64_t given : {0, 3, 64}) {
            GenerationConfig config{
                .max_new_tokens = new_tokens, .block_length = block_length, .cache = cache};
            expect_the_loops(package, config, given);
            config.cfg_scale = 1.0;
            expect_the_loops(package, config, given);
            if (package.attention == AttentionKind::block_causal) continue;
            config.suffix_window = 5;
            expect_the_loops(package, config, given);
            config.suffix_window = {};
            config.threshold = 0.5;
            config.deferred_window = 16;
            expect_the_loops(package, config, given);
          }
        }
      }
    }
  }
}

TEST(RequestMemory, NearTwoToThe31NothingIsAllocatedBeforeTheRefusal) {
  for (const PackageInfo& package : {endless(), endless(block_causal_package())}) {
    Scripted s(package, own_position, {.cache_bytes = 1 << 30});
    const std::string error =
        error_of([&] { static_cast<void>(s.engine.submit({}, {.max_new_tokens = most})); });
    EXPECT_EQ(error.find("max_new_tokens is 2147483647 behind a prompt of 0 tokens: the request "),
              0U)
        << error;
    EXPECT_EQ(s.engine.generate({}, {.max_new_tokens = 4}).token_ids.size(), 4U);
  }
}

}  // namespace
}  // namespace fastdllm::testing
