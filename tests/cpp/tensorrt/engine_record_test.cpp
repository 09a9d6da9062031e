// Which engines and libraries the TensorRT backend refuses, and what it says then.
#include <gtest/gtest.h>

#include "backends/tensorrt/tensorrt_session.hpp"
#include "fixture.hpp"

namespace fastdllm::testing {
namespace {

using TensorRtFiles = TensorRt;

TEST_F(TensorRtFiles, AnEngineAndItsLibrariesAreFound) {
  const auto session = open();
  EXPECT_EQ(session->description(), "tensorrt 10.14.1 (Fake GPU, sm87)");
  EXPECT_EQ(session->largest_run().rows, 256);
  EXPECT_EQ(session->largest_run().wanted, 32);
}

TEST_F(TensorRtFiles, AnEngineThatIsNotThereIsAskedFor) {
  std::filesystem::remove(engine_file());
  const std::string command = "fastdllm build-engine " + package.path.string();
  EXPECT_EQ(refusal_to_open(),
            engine_file().string() +
                ": no engine of this package for this GPU (Fake GPU, sm87); on this machine run: " +
                command);
  write(folder / "package.engines" / "tensorrt_rtx-sm87.engine", "");
  EXPECT_NE(refusal_to_open().find("(tensorrt_rtx-sm87.engine is for TensorRT-RTX, which this "
                                   "backend does not run)"),
            std::string::npos);
  options.tensorrt_engine = folder / "other.engine";
  EXPECT_NE(refusal_to_open().find("other.engine: no engine of this package"), std::string::npos);
}

TEST_F(TensorRtFiles, AForeignEngineIsRefused) {
  const std::string file = engine_file().string();
  const std::string command = "fastdllm build-engine " + package.path.string();
  write_record({.target = "sm86"});
  EXPECT_EQ(refusal_to_open(), file +
                                   ": made for sm86; this GPU (Fake GPU) is sm87, on this "
                                   "machine run: " +
                                   command);
  write_record({.package_sha256 = "0123"});
  EXPECT_EQ(refusal_to_open(), file + ": made from another package than " + package.path.string() +
                                   ", or before that was exported again; run: " + command);
  write_record({.compiler = "TensorRT-RTX 1.7.1.116"});
  EXPECT_NE(refusal_to_open().find("made by TensorRT-RTX 1.7.1.116; this backend runs engines of "
                                   "TensorRT"),
            std::string::npos);
  for (const char* compiler : {"TensorRT 10.3.0", "TensorRT 10.14.10", "TensorRT 10.14"}) {
    write_record({.compiler = compiler});
    EXPECT_EQ(refusal_to_open(), file + ": made by " + compiler +
                                     "; the library here is of TensorRT 10.14.1, which cannot read "
                                     "it; run: " +
                                     command);
  }
}

TEST_F(TensorRtFiles, ADamagedRecordOrEngineIsRefused) {
  const std::filesystem::path record = engine_file().replace_extension(".json");
  write_record({.bytes = 1000});
  EXPECT_NE(refusal_to_open(ErrorCode::bad_package).find("bytes; expected 1000 (truncated"),
            std::string::npos);
  write_record({.version = 2});
  EXPECT_EQ(refusal_to_open(ErrorCode::bad_package),
            "tensorrt-sm87.json.record_version is 2; expected an integer in [1, 1]");
  for (const char* content : {"", "[]", "{\"record_version\": 1}", "{{", "\xff"}) {
    write(record, content);
    EXPECT_NE(refusal_to_open(ErrorCode::bad_package).find("tensorrt-sm87.json"),
              std::string::npos);
  }
  write(record, std::string((1U << 20) + 1, ' '));
  EXPECT_NE(refusal_to_open(ErrorCode::bad_package).find("too large"), std::string::npos);
  std::filesystem::remove(record);
  EXPECT_NE(refusal_to_open(ErrorCode::bad_package).find("tensorrt-sm87.json: missing"),
            std::string::npos);
  const std::string same_size(std::string(fake_nvinfer::engine_content).size(), 'x');
  write(engine_file(), same_size);
  write_record({});
  EXPECT_EQ(refusal_to_open(),
            engine_file().string() +
                ": TensorRT 10.14.1 refuses the engine: magicTag does not match and more of this "
                "kind; if the file is whole, run: fastdllm build-engine " +
                package.path.string());
}

TEST_F(TensorRtFiles, ALibraryThatIsMissingOrDoesNotFitIsRefused) {
  fake_nvinfer::state().version = 8601;
  EXPECT_EQ(refusal_to_open(),
            "the library is of TensorRT 8.6.1; expected 10.1 or newer of 10, whose headers this "
            "fastdllm was built with");
  fake_nvinfer::state().version = 110000;
  EXPECT_NE(refusal_to_open().find("TensorRT 11.0.0; expected 10.1"), std::string::npos);
  fake_nvinfer::state().version = 100001;
  EXPECT_NE(refusal_to_open().find("TensorRT 10.0.1; expected 10.1"), std::string::npos);
  fake_nvinfer::state().version = 101401;
  fake_nvinfer::state().fails_to_start = true;
  EXPECT_EQ(refusal_to_open(),
            "TensorRT does not start: CUDA initialization failure with error: 35");
  options.tensorrt_library = "libm.so.6";
  EXPECT_NE(refusal_to_open().find("it is no TensorRT"), std::string::npos);
  options.tensorrt_library = "/nowhere/libnvinfer.so.10";
  const std::string message = refusal_to_open();
  for (const char* part : {"the TensorRT library was not found", "tensorrt_library",
                           "FASTDLLM_TENSORRT", "/nowhere/libnvinfer.so.10:"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST_F(TensorRtFiles, AnEngineThatIsNotOfTheContractIsRefused) {
  using fake_nvinfer::state;
  state().tensors[0].type = static_cast<ElementType>(99);
  EXPECT_NE(refusal_to_open(ErrorCode::bad_package).find("'input_ids' has a type"),
            std::string::npos);
  use(scripted_package());
  state().tensors[0].on_host = true;
  EXPECT_NE(refusal_to_open(ErrorCode::bad_package).find("'input_ids' lies on the host"),
            std::string::npos);
  use(scripted_package());
  state().tensors[0].name = "ids";
  EXPECT_NE(refusal_to_open(ErrorCode::bad_package).find("has no input 'input_ids'"),
            std::string::npos);
  use(scripted_package());
  state().profiles.clear();
  EXPECT_NE(refusal_to_open(ErrorCode::bad_package).find("no optimization profile"),
            std::string::npos);
  use(scripted_package(), {.rows_per_step = 1});
  EXPECT_NE(refusal_to_open(ErrorCode::bad_package).find("--rows-per-step 2"), std::string::npos);
}

TEST_F(TensorRtFiles, NoRoomToOpenItIsAnError) {
  fake_cuda::state().memory = 500;
  EXPECT_EQ(refusal_to_open(),
            "CUDA failed in holding 1 MB of activations (1 MB are free on the GPU): out of memory "
            "(2)");
}

TEST_F(TensorRtFiles, BackendAndDeviceAreRefusedByName) {
  const auto refusal = [&](const char* backend, const char* device) {
    options.backend = backend;
    options.device = device;
    return refusal_to_open(ErrorCode::bad_config);
  };
  EXPECT_EQ(refusal("trt", "cuda"), "backend is 'trt'; expected auto, onnxruntime or tensorrt");
  EXPECT_EQ(refusal("auto", "tpu"), "device is 'tpu'; expected cpu, cuda or cuda:N");
  EXPECT_EQ(refusal("tensorrt", "cpu"),
            "backend 'tensorrt' computes on a GPU; device is 'cpu', expected cuda or cuda:N");
}

TEST_F(TensorRtFiles, AutoTakesTheEngineOfThisGpu) {
  options.backend = "auto";
  EXPECT_EQ(open()->description(), "tensorrt 10.14.1 (Fake GPU, sm87)");
  fake_cuda::state().minor = 6;
  EXPECT_FALSE(finds_tensorrt_engine(package, options, {.cuda = true}));
  options.tensorrt_engine = engine_file();
  EXPECT_NE(refusal_to_open().find("made for sm87; this GPU (Fake GPU) is sm86"), std::string::npos)
      << "an engine that was named is taken or refused, and nothing else";
}

}  // namespace
}  // namespace fastdllm::testing
