#include "backends/onnxruntime/loader.hpp"

#include <gtest/gtest.h>

#include "fastdllm/error.hpp"

namespace fastdllm {
namespace {

std::string refusal_of(const std::string& library) {
  try {
    return "loaded " + load_onnxruntime(library);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::backend);
    return error.what();
  }
}

TEST(Loader, ListsWhatWasTriedWhenTheLibraryIsMissing) {
  const std::string message = refusal_of("/nowhere/libonnxruntime.so");
  EXPECT_NE(message.find("was not found"), std::string::npos) << message;
  EXPECT_NE(message.find("/nowhere/libonnxruntime.so"), std::string::npos) << message;
}

TEST(Loader, RefusesALibraryThatIsNoOnnxRuntime) {
  EXPECT_NE(refusal_of("libm.so.6").find("it is no ONNX Runtime"), std::string::npos);
}

TEST(Loader, RefusesAnOnnxRuntimeThatIsTooOld) {
  const std::string message = refusal_of(OLD_ONNXRUNTIME);
  EXPECT_NE(message.find("needs 1.24, found 1.23.2"), std::string::npos) << message;
  EXPECT_NE(message.find("old_onnxruntime"), std::string::npos) << message;
}

}  // namespace
}  // namespace fastdllm
