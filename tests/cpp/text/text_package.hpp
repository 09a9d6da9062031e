// A package folder with a tokenizer that has a token per byte, and no graph that anyone runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/package.hpp"
#include "fastdllm/text.hpp"
#include "support/concat.hpp"
#include "support/sha256.hpp"
#include "text/byte_alphabet.hpp"

namespace fastdllm::testing {

/// Tokens 0 to 255 are the bytes, 256 is special, 257 is the mask. Or, for the scripted session:
/// 0 to 13 are the letters from "a" on, 14 is special, 15 is the mask.
[[nodiscard]] inline nlohmann::json byte_tokenizer(bool letters_only = false) {
  const std::int32_t count = letters_only ? 14 : 256;
  nlohmann::json vocabulary = nlohmann::json::object();
  for (std::int32_t id = 0; id < count; ++id) {
    const char byte = static_cast<char>(letters_only ? 'a' + id : id);
    vocabulary[to_alphabet(std::string_view(&byte, 1))] = id;
  }
  const auto added = [](std::int32_t id, std::string_view content) -> nlohmann::json {
    return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
            {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", {added(count, "<|end|>"), added(count + 1, "<|mask|>")}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", false}}},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocabulary},
            {"merges", nlohmann::json::array()}}}};
}

/// ChatML with a default system line.
[[nodiscard]] inline nlohmann::json chat_format() {
  const auto turn = [](std::string_view role) -> nlohmann::json {
    return {{"before", concat("<", role, ">")},
            {"after", "\n"},
            {"trim", false},
            {"drop_through", nullptr},
            {"refused", nlohmann::json::array()}};
  };
  return {{"begin", "<system>Help.\n"},
          {"first_system", turn("system")},
          {"roles", {{"user", turn("user")}, {"assistant", turn("assistant")}}},
          {"generation_prompt", "<assistant>"},
          {"last_role", nullptr}};
}

/// Written anew by write(), removed with the object.
struct TextPackage {
  explicit TextPackage(std::string_view name, bool letters_only = false)
      : folder(std::filesystem::temp_directory_path() /
               ("fastdllm_" + std::string(name) + "_" + std::to_string(::getpid()))),
        tokenizer(byte_tokenizer(letters_only)) {
    metadata = {
        {"format_version", 1},
        {"family", "any"},
        {"precision", "fp32"},
        {"opset", 23},
        {"model",
         {{"num_layers", 1},
          {"num_heads", 1},
          {"num_kv_heads", 1},
          {"head_dim", 8},
          {"hidden_size", 8},
          {"vocab_size", letters_only ? 16 : 258},
          {"max_context_length", 512},
          {"mask_token_id", letters_only ? 15 : 257},
          {"eos_token_ids", {letters_only ? 14 : 256}},
          {"pad_token_id", nullptr},
          {"bos_token_id", nullptr},
          {"attention", "bidirectional"},
          {"logits_shift", 0},
          {"min_prompt_length", 0}}},
        {"graph", {{"file", "model.onnx"}, {"cache_type", "float32"}}},
        {"tokenizer",
         {{"file", "tokenizer.json"}, {"chat_template", nullptr}, {"chat_format", nullptr}}},
        {"files", nlohmann::json::object()}};
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
  }
  ~TextPackage() { std::filesystem::remove_all(folder); }
  TextPackage(const TextPackage&) = delete;
  TextPackage& operator=(const TextPackage&) = delete;

  TextPackage& with_chat(nlohmann::json format = chat_format()) {
    metadata["tokenizer"]["chat_template"] = "chat_template.jinja";
    metadata["tokenizer"]["chat_format"] = std::move(format);
    return *this;
  }

  void write_file(const std::string& name, const std::string& content) {
    std::ofstream(folder / name, std::ios::binary) << content;
    metadata["files"][name] = {{"bytes", content.size()},
                               {"sha256", sha256_of_file(folder / name)}};
  }

  [[nodiscard]] const std::filesystem::path& write() {
    write_file("model.onnx", ":\x03\x12\x01g");  // a graph named g
    write_file("tokenizer.json", tokenizer.dump());
    std::ofstream(folder / "fastdllm.json", std::ios::binary) << metadata.dump();
    return folder;
  }

  std::filesystem::path folder;
  nlohmann::json metadata, tokenizer;
};

}  // namespace fastdllm::testing
