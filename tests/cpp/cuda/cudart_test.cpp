#include "backends/cuda/cudart.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

#include "backends/device.hpp"
#include "fake_cuda.hpp"
#include "fastdllm/error.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm::cuda {
namespace {

using fake_cuda::state;

class Cudart : public ::testing::Test {
 protected:
  void SetUp() override { fake_cuda::reset(); }
  void TearDown() override {
    EXPECT_EQ(state().used, 0U) << "device memory is still held";
    EXPECT_EQ(state().counts.frees, state().counts.allocations);
    EXPECT_EQ(state().counts.pinned_frees, state().counts.pinned_allocations);
    EXPECT_EQ(state().counts.streams, state().counts.stream_frees);
    EXPECT_EQ(state().counts.graphs, state().counts.graph_frees);
    EXPECT_EQ(state().last_error, 0) << "left for the next library to find";
  }
};

template <typename Call>
std::string refusal_of(Call&& call, ErrorCode code = ErrorCode::backend) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  return "accepted";
}

std::string refusal_to_open(const std::string& library = FAKE_CUDART, int device = 0) {
  return refusal_of([&] { (void)Runtime::open(library, device); });
}

TEST_F(Cudart, TellsWhatGpuThereIs) {
  const auto runtime = Runtime::open(FAKE_CUDART, 0);
  EXPECT_EQ(runtime->device_name(), "Fake GPU");
  EXPECT_EQ(runtime->target(), "sm87");
  EXPECT_EQ(runtime->version(), "12.9");
  EXPECT_EQ(runtime->free_bytes(), state().memory);
}

TEST_F(Cudart, ListsWhatWasTriedWhenTheLibraryIsMissing) {
  const std::string message = refusal_to_open("/nowhere/libcudart.so");
  EXPECT_NE(message.find("the CUDA runtime library was not found"), std::string::npos) << message;
  EXPECT_NE(message.find("cudart_library"), std::string::npos) << message;
  EXPECT_NE(message.find("FASTDLLM_CUDART"), std::string::npos) << message;
  EXPECT_NE(message.find("/nowhere/libcudart.so:"), std::string::npos) << message;
}

TEST_F(Cudart, RefusesALibraryThatIsNoneOrTooOld) {
  EXPECT_NE(refusal_to_open("libm.so.6").find("has no cudaRuntimeGetVersion"), std::string::npos);
  state().version = 11080;
  EXPECT_EQ(refusal_to_open(),
            "the CUDA runtime library is of version 11.8, too old; expected 12.0 or newer");
}

TEST_F(Cudart, RefusesAGpuThatIsNotThere) {
  EXPECT_EQ(refusal_to_open(FAKE_CUDART, 1), "device is cuda:1; this machine has 1 GPU: cuda:0");
  state().devices = 0;
  EXPECT_EQ(refusal_to_open(),
            "CUDA failed in looking for GPUs: no CUDA-capable device is detected (100)");
}

TEST_F(Cudart, CopiesInTheOrderOfTheStream) {
  const auto runtime = Runtime::open(FAKE_CUDART, 0);
  const Stream stream(runtime);
  PinnedMemory in(runtime, 8, "input");
  PinnedMemory out(runtime, 8, "output");
  DeviceMemory first(runtime, 8, "one"), second(runtime, 8, "two");
  std::memcpy(in.data(), "content", 8);
  stream.copy(first.data(), in.data(), 8);
  stream.copy(second.data(), first.data(), 8);
  stream.copy(out.data(), second.data(), 8);
  stream.synchronize();
  EXPECT_STREQ(static_cast<const char*>(out.data()), "content");
}

TEST_F(Cudart, SaysWhatDidNotFit) {
  state().memory = 10'000'000;
  const auto runtime = Runtime::open(FAKE_CUDART, 0);
  EXPECT_EQ(refusal_of([&] { const DeviceMemory memory(runtime, 12'000'000, "K/V rows"); }),
            "CUDA failed in holding 12 MB of K/V rows (10 MB are free on the GPU): "
            "out of memory (2)");
  const DeviceMemory nothing(runtime, 0, "nothing");  // and goes on
}

TEST_F(Cudart, ReplaysWhatWasCaptured) {
  const auto runtime = Runtime::open(FAKE_CUDART, 0);
  const Stream stream(runtime);
  PinnedMemory in(runtime, 4, "input"), out(runtime, 4, "output");
  DeviceMemory memory(runtime, 4, "memory");
  std::memcpy(out.data(), "old", 4);
  const auto graph = stream.capture([&] {
    stream.copy(memory.data(), in.data(), 4);
    stream.copy(out.data(), memory.data(), 4);
    return true;
  });
  ASSERT_NE(graph, nullptr);
  stream.synchronize();
  EXPECT_STREQ(static_cast<const char*>(out.data()), "old") << "captured work has run";
  for (const char* text : {"one", "two"}) {
    std::memcpy(in.data(), text, 4);
    graph->launch(stream);
    stream.synchronize();
    EXPECT_STREQ(static_cast<const char*>(out.data()), text);
  }
}

TEST_F(Cudart, ACaptureThatFailsLeavesTheStreamUsable) {
  const auto runtime = Runtime::open(FAKE_CUDART, 0);
  const Stream stream(runtime);
  const auto nothing = [] { return true; };
  for (const char* function :
       {"cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"}) {
    state().failures[function] = 900;
    EXPECT_EQ(stream.capture(nothing), nullptr) << function;
    state().failures.clear();
  }
  EXPECT_EQ(stream.capture([] { return false; }), nullptr);
  EXPECT_THROW((void)stream.capture([]() -> bool { throw std::runtime_error("no"); }),
               std::runtime_error);
  EXPECT_NE(stream.capture(nothing), nullptr);
  stream.synchronize();
}

TEST_F(Cudart, AnErrorOfTheGpuComesOutOfSynchronize) {
  const auto runtime = Runtime::open(FAKE_CUDART, 0);
  const Stream stream(runtime);
  state().failures["cudaStreamSynchronize"] = 700;
  EXPECT_EQ(refusal_of([&] { stream.synchronize(); }), "CUDA failed in a pass: fake error (700)");
  state().failures.clear();
  stream.synchronize();
  state().last_error = 0;
}

TEST(DeviceName, IsReadOrRefused) {
  EXPECT_FALSE(parse_device("cpu").cuda);
  EXPECT_TRUE(parse_device("cuda").cuda);
  EXPECT_EQ(parse_device("cuda").index, 0);
  EXPECT_EQ(parse_device("cuda:12").index, 12);
  for (const char* name : {"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "cuda: 1",
                           "cuda:99999999999999999999", "cuda:5000"}) {
    EXPECT_EQ(refusal_of([&] { (void)parse_device(name); }, ErrorCode::bad_config),
              "device is '" + std::string(name) + "'; expected cpu, cuda or cuda:N");
  }
}

TEST(OpenSession, RefusesAnEngineThatWouldNotBeUsed) {
  const std::string named = "tensorrt_engine is 'x.engine' with backend '";
  const std::string expected = "'; expected backend auto or tensorrt and device cuda or cuda:N";
  const PackageInfo package;
  EXPECT_EQ(refusal_of([&] { (void)open_session(package, {.tensorrt_engine = "x.engine"}); },
                       ErrorCode::bad_config),
            named + "auto' and device 'cpu" + expected);
  const SessionOptions other{
      .backend = "onnxruntime", .device = "cuda", .tensorrt_engine = "x.engine"};
  EXPECT_EQ(refusal_of([&] { (void)open_session(package, other); }, ErrorCode::bad_config),
            named + "onnxruntime' and device 'cuda" + expected);
}

}  // namespace
}  // namespace fastdllm::cuda
