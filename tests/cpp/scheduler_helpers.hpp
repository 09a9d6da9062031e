// What the tests of the scheduler share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "fastdllm/engine.hpp"

namespace fastdllm::testing {

using Ids = std::vector<std::int32_t>;
using Rows = std::vector<std::int64_t>;

inline Ids prompt(std::size_t length) {
  return Ids(length, 1);
}

inline Ids expected(std::int64_t start, std::int64_t count) {
  Ids ids;
  for (std::int64_t i = start; i < start + count; ++i) {
    ids.push_back(static_cast<std::int32_t>(i % 10));
  }
  return ids;
}

// Calls once, with the first commit: the engine's thread is then between two passes.
inline CommitCallback at_first_commit(std::function<void()> call) {
  return [call = std::move(call), called = false](const CommitEvent&) mutable {
    if (!called) call();
    called = true;
    return true;
  };
}

inline std::string error_of(const Request& request) {
  try {
    static_cast<void>(request.result());
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace fastdllm::testing
