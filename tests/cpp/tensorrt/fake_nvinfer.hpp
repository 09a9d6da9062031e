// TensorRT without a GPU, as a shared library: what tests ask of it beyond TensorRT's functions. It
// is as strict as the original where a mistake would go unseen: every tensor needs an address of
// its kind, shapes have to fit the profile and each other, a changed shape costs a run before the
// next capture. What an engine computes is for the test to say.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "fastdllm/tensor.hpp"

namespace fake_nvinfer {

/// dims: numbers, or names of sizes.
struct Tensor {
  std::string name;
  fastdllm::ElementType type;
  std::vector<std::string> dims;
  bool is_output = false;
  bool on_host = false;  // a size: its value is the size "kept"
};

using Sizes = std::map<std::string, std::int64_t>;

struct Profile {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> sizes;  // least and most
};

/// One run as the "kernels" see it.
struct Work {
  Sizes sizes;
  std::map<std::string, fastdllm::TensorView> tensors;  // their content
  std::int64_t kept = 0;                                // the one on the host, as it was enqueued
};

/// One call of enqueueV3.
struct Enqueued {
  int profile = 0;
  bool captured = false;
  Sizes sizes;
  std::map<std::string, const void*> addresses;  // as they were set
};

struct State {
  std::int32_t version = 101401;
  std::vector<Tensor> tensors;
  std::vector<Profile> profiles;
  std::int64_t scratch_bytes = 1000;
  std::function<void(Work&)> kernels;
  bool fails_in_run = false;
  bool fails_in_capture = false;
  bool fails_to_start = false;
  std::vector<Enqueued> runs;
  int contexts = 0, engines = 0, runtimes = 0;  // alive
  int shape_changes = 0, address_changes = 0;
};

State& state();
/// As a fresh library.
void reset();

/// What the bytes of an engine have to be.
inline constexpr const char* engine_content = "an engine for the fake TensorRT\n";

}  // namespace fake_nvinfer
