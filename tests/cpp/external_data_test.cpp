#include "package/external_data.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "fastdllm/error.hpp"

namespace fastdllm {
namespace {

using Names = std::set<std::string>;

std::string varint(std::size_t value) {
  std::string bytes;
  for (; value > 127; value >>= 7) bytes += static_cast<char>(value | 128);
  return bytes + static_cast<char>(value);
}

// A field of stated length: a message, or text.
std::string field(std::size_t number, const std::string& content) {
  return varint(number << 3 | 2) + varint(content.size()) + content;
}

std::string tensor(const std::string& location) {
  return field(13, field(1, "offset") + field(2, "0")) +
         field(13, field(2, location) + field(1, "location"));
}

Names locations(const std::string& model) {
  return external_locations(std::as_bytes(std::span(model)), "model.onnx");
}

void expect_refusal(const std::string& model, const std::string& part) {
  try {
    static_cast<void>(locations(model));
    ADD_FAILURE() << "accepted; expected: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_package);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(ExternalData, IsFoundInInitializersAndSubgraphs) {
  const std::string branch = field(6, field(5, tensor("inner")));              // AttributeProto.g
  const std::string node = field(1, field(5, branch) + field(4, "Identity"));  // op_type
  EXPECT_EQ(locations(field(7, field(5, tensor("outer")) + node)), (Names{"outer", "inner"}));
}

TEST(ExternalData, IsFoundInFunctionsAndSparseTensors) {
  const std::string constant = field(7, field(5, field(22, field(1, tensor("values")))));
  EXPECT_EQ(locations(field(25, constant)), (Names{"values"}));
}

TEST(ExternalData, OfTwoGraphsThatAreMergedBothCount) {
  EXPECT_EQ(locations(field(7, field(5, tensor("one"))) + field(7, field(5, tensor("two")))),
            (Names{"one", "two"}));
}

TEST(ExternalData, OtherFieldsAreSkippedWhateverTheyHold) {
  const std::string numbers = "\x08\x0a" + std::string("\x25") + "abcd" + "\x21" + "abcdefgh";
  EXPECT_EQ(locations(numbers + field(8, "location") + field(7, field(2, tensor("a name")))),
            Names{});
}

TEST(ExternalData, WhatIsNoModelIsRefused) {
  expect_refusal("graph", "unknown kind of field at byte 1");
  expect_refusal(":\x7f", "reaches beyond");
  expect_refusal(field(7, std::string("\x2a\x05") + "abc"), "reaches beyond");
  expect_refusal(std::string(11, '\xff'), "more than 64 bits");
  expect_refusal("\x08\xff", "cut off");
  expect_refusal(std::string(1, '\0'), "wrong tag");
}

TEST(ExternalData, NestingIsBounded) {
  std::string graph = field(5, tensor("deep"));
  for (int i = 0; i < 40; ++i) graph = field(1, field(5, field(6, graph)));
  expect_refusal(field(7, graph), "more than 100 messages");
}

}  // namespace
}  // namespace fastdllm
