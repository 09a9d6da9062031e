#include "cache/model.hpp"

#include <gtest/gtest.h>

#include "fastdllm/error.hpp"
#include "scripted_session.hpp"

namespace fastdllm::testing {
namespace {

std::string refusal_of(std::unique_ptr<ScriptedSession> session) {
  try {
    const Model model(scripted_package(), std::move(session));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_package);
    return error.what();
  }
  return "accepted";
}

TEST(Model, AcceptsAGraphWithTheContract) {
  EXPECT_EQ(refusal_of(std::make_unique<ScriptedSession>()), "accepted");
}

TEST(Model, NamesAMissingTensor) {
  auto session = std::make_unique<ScriptedSession>();
  session->input_specs.erase(session->input_specs.begin() + 3);
  EXPECT_NE(refusal_of(std::move(session)).find("input 'logit_indices' is missing"),
            std::string::npos);
}

TEST(Model, NamesATensorOfTheWrongShapeOrType) {
  auto shape = std::make_unique<ScriptedSession>();
  shape->output_specs[4].shape[2] = vocab_size + 1;
  EXPECT_EQ(
      refusal_of(std::move(shape)),
      "model.onnx: output 'logits' is float32 [any, any, 17]; expected float32 [any, any, 16]");
  auto type = std::make_unique<ScriptedSession>();
  type->output_specs[6].type = ElementType::float16;
  EXPECT_EQ(refusal_of(std::move(type)),
            "model.onnx: output 'present.0.value' is float16 [any, 2, any, 4]; expected float32 "
            "[any, 2, any, 4]");
}

}  // namespace
}  // namespace fastdllm::testing
