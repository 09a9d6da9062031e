#include "fastdllm/version.h"

#include <gtest/gtest.h>

#include <string>

namespace fastdllm {
namespace {

TEST(Version, TheLibrarySaysWhatTheHeaderSays) {
  const std::string numbers = std::to_string(FASTDLLM_VERSION_MAJOR) + '.' +
                              std::to_string(FASTDLLM_VERSION_MINOR) + '.' +
                              std::to_string(FASTDLLM_VERSION_PATCH);
  EXPECT_EQ(numbers, FASTDLLM_VERSION);
  EXPECT_STREQ(version(), FASTDLLM_VERSION);
}

}  // namespace
}  // namespace fastdllm
