// A real package on the devices that SessionOptions names. FASTDLLM_TEST_DEVICE=cuda:0 runs it on a
// GPU (with onnxruntime-gpu, or a TensorRT engine in PACKAGE.engines); without it only what a
// machine without one is told is tested.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "fastdllm/engine.hpp"
#include "mixed_requests.hpp"
#include "with_package.hpp"

namespace fastdllm::testing {
namespace {

class PackageDevice : public WithPackage {};

TEST_F(PackageDevice, RefusesADeviceThatItDoesNotKnow) {
  for (const char* name : {"gpu", "cuda:", "cuda:-1", "cuda:1x", "CPU"}) {
    try {
      const Engine engine(package(), {.device = name});
      FAIL() << name << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_config);
      EXPECT_EQ(std::string(error.what()),
                std::string("device is '") + name + "'; expected cpu, cuda or cuda:N");
    }
  }
}

TEST_F(PackageDevice, SaysWhatIsMissingForAGpuThatCannotBeHad) {
  try {
    const Engine engine(package(), {.backend = "onnxruntime", .device = "cuda:1000"});
    FAIL() << "this machine has 1001 GPUs";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::backend);
    EXPECT_NE(std::string(error.what()).find("CUDA"), std::string::npos) << error.what();
  }
}

double milliseconds_per_pass(const std::vector<GenerationResult>& answers) {
  double seconds = 0.0;
  std::int64_t passes = 0;
  for (const GenerationResult& answer : answers) {
    seconds += answer.stats.graph_seconds;
    passes += answer.num_passes;
  }
  return 1e3 * seconds / static_cast<double>(passes);
}

// Kernels of another device round otherwise: where two tokens are all but equally likely, either
// may be chosen, and an answer goes on from there.
TEST_F(PackageDevice, OfATestGivesTheAnswersOfTheCpuAndTheSameSideBySide) {
  const char* device = std::getenv("FASTDLLM_TEST_DEVICE");
  if (device == nullptr) GTEST_SKIP() << "FASTDLLM_TEST_DEVICE names no device";
  Engine cpu(package());
  Engine gpu(package(), {.device = device});
  const std::vector<Asked> asked = mixed_requests(cpu.package(), 200, false);
  const std::vector<GenerationResult> expected = answer_all(cpu, asked);
  const std::vector<GenerationResult> found = answer_all(gpu, asked);
  std::ptrdiff_t equal = 0;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    equal += found[i].token_ids == expected[i].token_ids ? 1 : 0;
  }
  const std::int64_t differing = std::ssize(differences_side_by_side(gpu, asked, found, 2, 100));
  std::cout << gpu.backend() << ": " << equal << " of 200 answers equal " << cpu.backend() << ", "
            << milliseconds_per_pass(found) << " and " << milliseconds_per_pass(expected)
            << " ms a pass; " << 200 - differing << " of 200 equal side by side\n";
  EXPECT_GE(equal, 180);
  EXPECT_LE(differing, 20);
}

}  // namespace
}  // namespace fastdllm::testing
