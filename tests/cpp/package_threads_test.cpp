// The same with a real package and ONNX Runtime: FASTDLLM_TEST_PACKAGE names it, without it the
// tests are skipped. A program of its own, for a process holds one ONNX Runtime, and for its memory
// to be its own.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "fastdllm/engine.hpp"
#include "mixed_requests.hpp"
#include "with_package.hpp"

namespace fastdllm::testing {
namespace {

class PackageThreads : public WithPackage {};

std::int64_t resident_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::int64_t kib = 0;
    if (word == "VmRSS:" && status >> kib) return kib;
  }
  return 0;
}

TEST_F(PackageThreads, TwoHundredMixedRequestsOfTwoThreadsEqualTheSerialAnswers) {
  Engine serial(package(), {.threads = 1}, {.max_batch = 1});
  Engine shared(package(), {.threads = 1});
  const std::vector<Asked> asked = mixed_requests(serial.package(), 200, false);
  const std::vector<GenerationResult> alone = answer_all(serial, asked);
  EXPECT_EQ(differences_side_by_side(shared, asked, alone, 2, 100), std::vector<std::string>{});
}

TEST_F(PackageThreads, AThousandRequestsGrowTheProcessByAPercentAtMost) {
  Engine engine(package(), {.threads = 1});
  const std::vector<Asked> asked = mixed_requests(engine.package(), 100, true);
  std::int64_t after_300 = 0;
  for (int round = 0; round < 10; ++round) {
    for (const Asked& one : asked) static_cast<void>(one.submit(engine).result());
    if (round == 2) after_300 = resident_kib();
  }
  const std::int64_t after_1000 = resident_kib();
  std::cout << "resident: " << after_300 << " KiB after 300 requests, " << after_1000
            << " after 1000\n";
  EXPECT_GT(after_300, 0);
  EXPECT_LE(after_1000, after_300 * 101 / 100);
}

TEST_F(PackageThreads, AbortFromAnotherThreadEndsARequestWithinAPass) {
  Engine engine(package(), {.threads = 1});
  std::atomic<std::int64_t> passes{0};
  const std::vector<std::int32_t> ids{1, 2, 3};
  const Request request =
      engine.submit(ids, {.max_new_tokens = 200, .ignore_eos = true}, [&](const CommitEvent&) {
        ++passes;
        return true;
      });
  while (passes < 5) std::this_thread::yield();
  request.cancel();
  const std::int64_t at_cancel = passes;
  EXPECT_EQ(request.result().finish_reason, FinishReason::abort);
  EXPECT_LE(passes, at_cancel + 1);
}

}  // namespace
}  // namespace fastdllm::testing
