#include "fastdllm/package.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"
#include "support/sha256.hpp"

namespace fastdllm {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// The smallest model: a graph of this name, of one letter.
std::string graph_named(const char* letter) {
  return concat(":\x03\x12\x01", letter);
}

class Package : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / (std::string("fastdllm_package_") + test->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    write("model.onnx", graph_named("g"));
    write("model.onnx.data", "weights");
    metadata_ = {
        {"format_version", 1},
        {"family", "any"},
        {"precision", "fp32"},
        {"opset", 23},
        {"model",
         {{"num_layers", 2},
          {"num_heads", 4},
          {"num_kv_heads", 2},
          {"head_dim", 8},
          {"hidden_size", 32},
          {"vocab_size", 16},
          {"max_context_length", 64},
          {"mask_token_id", 15},
          {"eos_token_ids", {14}},
          {"pad_token_id", 14},
          {"bos_token_id", nullptr},
          {"attention", "bidirectional"},
          {"logits_shift", 0},
          {"min_prompt_length", 0}}},
        {"graph", {{"file", "model.onnx"}, {"cache_type", "float32"}}},
        {"files",
         {{"model.onnx", {{"bytes", 5}, {"sha256", sha256_of_file(folder_ / "model.onnx")}}},
          {"model.onnx.data", {{"bytes", 7}, {"sha256", "not read at load"}}}}}};
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }

  PackageInfo read() const {
    write("fastdllm.json", metadata_.dump());
    return read_package(folder_);
  }

  std::string refusal() const {
    try {
      static_cast<void>(read());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_package);
      return error.what();
    }
    return "accepted";
  }

  void expect_refusal(const std::string& part) const {
    EXPECT_NE(refusal().find(part), std::string::npos) << refusal();
  }

  fs::path folder_;
  json metadata_;
};

TEST_F(Package, GivesItsFacts) {
  const PackageInfo info = read();
  EXPECT_EQ(info.num_kv_heads, 2);
  EXPECT_EQ(info.mask_token_id, 15);
  EXPECT_EQ(info.eos_token_ids, std::vector<std::int32_t>{14});
  EXPECT_EQ(info.pad_token_id, 14);
  EXPECT_FALSE(info.bos_token_id.has_value());
  EXPECT_EQ(info.graph.filename(), "model.onnx");
}

TEST_F(Package, YoungerFactsHaveDefaultsAndAreChecked) {
  EXPECT_FALSE(read().block_length);
  EXPECT_TRUE(read().threshold_inclusive);
  metadata_["model"].update({{"attention", "block_causal"},
                             {"block_length", 32},
                             {"sub_block_length", nullptr},
                             {"seed_token", true},
                             {"threshold_inclusive", false},
                             {"confidence", "processed"}});
  const PackageInfo info = read();
  EXPECT_EQ(info.block_length, 32);
  EXPECT_FALSE(info.sub_block_length);
  EXPECT_TRUE(info.seed_token);
  EXPECT_FALSE(info.threshold_inclusive);
  EXPECT_EQ(info.confidence, ConfidenceKind::processed);
  metadata_["model"]["seed_token"] = 1;
  EXPECT_THROW(static_cast<void>(read()), Error);
  metadata_["model"]["seed_token"] = true;
  EXPECT_EQ(read().score_bytes, 0);
  metadata_["graph"]["score_bytes"] = 12;
  EXPECT_EQ(read().score_bytes, 12);
  metadata_["graph"]["score_bytes"] = -1;
  expect_refusal("fastdllm.json.graph.score_bytes is -1; expected an integer in [0, 16777216]");
}

TEST_F(Package, FromTheFutureIsRefusedBeforeAnythingElseIsRead) {
  metadata_ = {{"format_version", 2}};
  expect_refusal("format_version is 2; this fastdllm reads up to 1");
}

TEST_F(Package, NamesAMissingKey) {
  metadata_["model"].erase("head_dim");
  expect_refusal("fastdllm.json.model: key 'head_dim' is missing");
}

TEST_F(Package, NamesAWrongTypeOrRange) {
  metadata_["model"]["vocab_size"] = "many";
  expect_refusal(
      "fastdllm.json.model.vocab_size is \"many\"; expected an integer in [3, 2147483647]");
  metadata_["model"]["vocab_size"] = 16;
  metadata_["model"]["mask_token_id"] = 16;
  expect_refusal("mask_token_id is 16; expected an integer in [0, 15]");
  metadata_["model"]["mask_token_id"] = 18446744073709551615U;
  expect_refusal("mask_token_id is 18446744073709551615; expected");
}

TEST_F(Package, RefusesAnUnknownAttentionKind) {
  metadata_["model"]["attention"] = "sideways";
  expect_refusal("attention is \"sideways\"; expected one of \"bidirectional\", \"block_causal\"");
}

TEST_F(Package, TruncatedWeightsAreNamedWithBothSizes) {
  write("model.onnx.data", "wei");
  expect_refusal("model.onnx.data: is 3 bytes; expected 7");
}

TEST_F(Package, ADamagedGraphIsFoundByItsChecksum) {
  write("model.onnx", graph_named("G"));
  expect_refusal("model.onnx: sha256 is ");
}

TEST_F(Package, MissingFilesAndFolders) {
  fs::remove(folder_ / "model.onnx.data");
  expect_refusal("model.onnx.data: missing");
  EXPECT_THROW(static_cast<void>(read_package(folder_ / "nowhere")), Error);
  EXPECT_THROW(static_cast<void>(read_package("/")), Error);
}

TEST_F(Package, RefusesFileNamesThatLeaveTheFolder) {
  metadata_["files"]["../secret"] = {{"bytes", 1}, {"sha256", ""}};
  expect_refusal("'../secret' is no plain file name");
}

TEST_F(Package, RefusesWhatIsNoJson) {
  write("fastdllm.json", "{\"format_version\": 1,");
  EXPECT_THROW(static_cast<void>(read_package(folder_)), Error);
  write("fastdllm.json", metadata_.dump() + std::string("\0 more", 6));
  EXPECT_THROW(static_cast<void>(read_package(folder_)), Error);
}

TEST(Sha256, AgreesWithThePublishedVectors) {
  const fs::path path = fs::temp_directory_path() / "fastdllm_sha256";
  const auto digest_of = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return sha256_of_file(path);
  };
  EXPECT_EQ(digest_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest_of(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  fs::remove(path);
}

TEST_F(Package, CheckFilesHashesTheWeightsToo) {
  static_cast<void>(read());
  const std::vector<FileCheck> damaged = check_files(folder_);
  metadata_["files"]["model.onnx.data"]["sha256"] = sha256_of_file(folder_ / "model.onnx.data");
  static_cast<void>(read());
  const std::vector<FileCheck> sound = check_files(folder_);

  ASSERT_EQ(damaged.size(), 2U);
  EXPECT_TRUE(damaged[0].passed);
  EXPECT_EQ(damaged[0].name, "model.onnx");
  EXPECT_EQ(damaged[0].detail, "5 bytes");
  EXPECT_FALSE(damaged[1].passed);
  EXPECT_NE(damaged[1].detail.find("expected not read at load"), std::string::npos);
  ASSERT_EQ(sound.size(), 2U);
  EXPECT_TRUE(sound[1].passed);
}

TEST_F(Package, CheckFilesNamesWhatIsNotListed) {
  static_cast<void>(read());
  write("model.bak", "x");

  const std::vector<FileCheck> checks = check_files(folder_);

  ASSERT_EQ(checks.size(), 3U);
  EXPECT_FALSE(checks[0].passed);
  EXPECT_EQ(checks[0].detail, "not listed in fastdllm.json: model.bak");
}

}  // namespace
}  // namespace fastdllm
