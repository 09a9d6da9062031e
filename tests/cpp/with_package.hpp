// Tests with a real package and ONNX Runtime: FASTDLLM_TEST_PACKAGE names it, without it they are
// skipped.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

namespace fastdllm::testing {

class WithPackage : public ::testing::Test {
 protected:
  void SetUp() override {
    if (package() == nullptr) GTEST_SKIP() << "FASTDLLM_TEST_PACKAGE names no package";
  }
  static const char* package() { return std::getenv("FASTDLLM_TEST_PACKAGE"); }
};

}  // namespace fastdllm::testing
