// A package, its engine, and fake libraries that run it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "../cuda/fake_cuda.hpp"
#include "../scripted_session.hpp"
#include "fake_nvinfer.hpp"
#include "fastdllm/engine.hpp"
#include "fastdllm/error.hpp"
#include "support/concat.hpp"
#include "support/sha256.hpp"

namespace fastdllm::testing {

/// Sizes that the fake engine's profiles take.
struct EngineSizes {
  std::int64_t batch = 1, rows = 256, cached = 256, rows_per_step = 32;
};

/// The graph contract as an engine has it.
inline void describe_engine(const PackageInfo& package, const EngineSizes& sizes) {
  using enum ElementType;
  const std::string vocab = std::to_string(package.vocab_size);
  const std::string heads = std::to_string(package.num_kv_heads);
  const std::string dim = std::to_string(package.head_dim);
  fake_nvinfer::State& state = fake_nvinfer::state();
  state.tensors = {{"input_ids", int64, {"batch", "rows"}},
                   {"position_ids", int64, {"batch", "rows"}},
                   {"attention_mask", boolean, {"batch", "1", "mask_rows", "attended"}},
                   {"logit_indices", int64, {"batch", "wanted"}},
                   {"present_length", int64, {"1"}, false, true},
                   {"token_ids", int64, {"batch", "wanted"}, true},
                   {"confidence", float32, {"batch", "wanted"}, true},
                   {"complement", float32, {"batch", "wanted"}, true},
                   {"second_confidence", float32, {"batch", "wanted"}, true},
                   {"entropy", float32, {"batch", "wanted"}, true},
                   {"logits", float32, {"batch", "wanted", vocab}, true}};
  for (std::int64_t layer = 0; layer < package.num_layers; ++layer) {
    for (const char* part : {"key", "value"}) {
      state.tensors.push_back({concat("past_key_values.", layer, ".", part),
                               package.cache_type,
                               {"batch", heads, "cached", dim}});
      state.tensors.push_back({concat("present.", layer, ".", part),
                               package.cache_type,
                               {"batch", heads, "kept", dim},
                               true});
    }
  }
  const auto profile = [&](std::int64_t rows) {
    return fake_nvinfer::Profile{{{"batch", {1, sizes.batch}},
                                  {"rows", {1, rows}},
                                  {"cached", {0, sizes.cached}},
                                  {"wanted", {1, sizes.rows_per_step}},
                                  {"attended", {1, rows + sizes.cached}},
                                  {"mask_rows", {1, rows}}}};
  };
  state.profiles = {profile(sizes.rows), profile(sizes.rows_per_step)};
}

/// Lets another session compute on the content of the device's memory.
inline void run_on(Session& session, fake_nvinfer::Work& work, bool with_logits) {
  for (std::size_t i = 0; i < session.inputs().size(); ++i) {
    session.bind_input(i, work.tensors.at(session.inputs()[i].name));
  }
  for (std::size_t i = 0; i < session.outputs().size(); ++i) {
    const std::string& name = session.outputs()[i].name;
    if (name != "logits" || with_logits) session.bind_output(i, work.tensors.at(name));
  }
  session.run();
}

class TensorRt : public ::testing::Test {
 protected:
  void SetUp() override {
    fake_cuda::reset();
    fake_nvinfer::reset();
    std::filesystem::create_directories(folder / "package.engines");
    std::filesystem::create_directories(folder / "package");
    use(scripted_package());
  }

  void TearDown() override {
    EXPECT_EQ(fake_cuda::state().used, 0U) << "device memory is still held";
    EXPECT_EQ(fake_cuda::state().counts.pinned_frees, fake_cuda::state().counts.pinned_allocations);
    EXPECT_EQ(fake_cuda::state().counts.graphs, fake_cuda::state().counts.graph_frees);
    EXPECT_EQ(fake_nvinfer::state().runtimes, 0);
    EXPECT_EQ(fake_nvinfer::state().engines, 0);
    EXPECT_EQ(fake_nvinfer::state().contexts, 0);
    std::filesystem::remove_all(folder);
  }

  /// Makes `info` the package, with an engine of these sizes for the fake GPU.
  void use(PackageInfo info, const EngineSizes& sizes = {}) {
    package = std::move(info);
    package.path = folder / "package";
    write(package.path / "fastdllm.json", "{}");
    describe_engine(package, sizes);
    write(engine_file(), fake_nvinfer::engine_content);
    write_record({});
    scripted = std::make_unique<ScriptedSession>(package);
    scripted->script = own_position;
    fake_nvinfer::state().kernels = [this](fake_nvinfer::Work& work) {
      run_on(*scripted, work, false);
    };
  }

  struct Record {
    std::string compiler = "TensorRT 10.14.1.48";
    std::string target = "sm87";
    std::string package_sha256{};  // "" = the package's
    std::int64_t bytes =
        static_cast<std::int64_t>(std::string(fake_nvinfer::engine_content).size());
    int version = 1;
  };
  void write_record(const Record& record) const {
    const std::string digest = record.package_sha256.empty()
                                   ? sha256_of_file(package.path / "fastdllm.json")
                                   : record.package_sha256;
    write(engine_file().replace_extension(".json"),
          concat(R"({"record_version": )", record.version, R"(, "compiler": ")", record.compiler,
                 R"(", "target": ")", record.target,
                 R"(", "device": "Fake GPU", "package_sha256": ")", digest,
                 R"(", "profiles": [], "seconds": 1.5, "bytes": )", record.bytes,
                 R"(, "sha256": ""})"));
  }

  [[nodiscard]] std::filesystem::path engine_file() const {
    return folder / "package.engines" / "tensorrt-sm87.engine";
  }

  static void write(const std::filesystem::path& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
  }

  [[nodiscard]] std::unique_ptr<Session> open() const { return open_session(package, options); }
  [[nodiscard]] Engine engine(const EngineLimits& limits = {}) const {
    return Engine(package, open(), limits);
  }

  /// What opening, or asking, is refused with.
  template <typename Call>
  static std::string refusal_of(Call&& call, ErrorCode code = ErrorCode::backend) {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
      return error.what();
    }
    return "accepted";
  }
  [[nodiscard]] std::string refusal_to_open(ErrorCode code = ErrorCode::backend) const {
    return refusal_of([&] { (void)open(); }, code);
  }

  std::filesystem::path folder =
      std::filesystem::temp_directory_path() /
      concat("fastdllm-tensorrt-", ::testing::UnitTest::GetInstance()->random_seed(), "-",
             reinterpret_cast<std::uintptr_t>(this), "-", getpid());
  PackageInfo package;
  SessionOptions options{.backend = "tensorrt",
                         .device = "cuda",
                         .tensorrt_library = FAKE_NVINFER,
                         .cudart_library = FAKE_CUDART};
  std::unique_ptr<ScriptedSession> scripted;
};

}  // namespace fastdllm::testing
