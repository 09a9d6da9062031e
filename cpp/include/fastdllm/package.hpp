// What a package says of its model: facts that the runtime branches on. See export/PACKAGE.md.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fastdllm/export.h"
#include "fastdllm/tensor.hpp"

namespace fastdllm {

/// Packages up to this format version are read; newer ones are refused.
inline constexpr int supported_format_version = 1;

/// What a package's weights and arithmetic may be; see export/PACKAGE.md.
inline constexpr std::array<std::string_view, 5> precisions{"fp32", "fp16", "bf16", "int8", "int4"};

/// block_causal: a row at position i sees position j iff i / block_length >= j / block_length.
enum class AttentionKind { bidirectional, block_causal };

/// What the confidence of a proposed token is.
enum class ConfidenceKind {
  raw,        ///< its softmax probability by the plain logits
  processed,  ///< its probability in the distribution sampled from (temperature, top_p, top_k)
};

[[nodiscard]] FASTDLLM_API std::string_view name_of(AttentionKind kind) noexcept;
[[nodiscard]] FASTDLLM_API std::string_view name_of(ConfidenceKind kind) noexcept;

struct PackageInfo {
  std::filesystem::path path;  ///< the package folder
  int format_version = 0;
  std::string family;     ///< for people; nothing branches on it
  std::string precision;  ///< one of `precisions`
  int opset = 0;
  std::filesystem::path graph;  ///< absolute path of model.onnx
  ElementType cache_type = ElementType::float32;

  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t hidden_size = 0;
  std::int64_t vocab_size = 0;          ///< ids are in [0, vocab_size)
  std::int64_t max_context_length = 0;  ///< prompt + new tokens
  std::int32_t mask_token_id = 0;
  std::vector<std::int32_t> eos_token_ids;
  std::optional<std::int32_t> pad_token_id;
  std::optional<std::int32_t> bos_token_id;
  AttentionKind attention = AttentionKind::bidirectional;
  std::int64_t logits_shift = 0;                 ///< 1: the row before a position predicts it
  std::optional<std::int64_t> block_length;      ///< default of GenerationConfig::block_length
  std::optional<std::int64_t> sub_block_length;  ///< likewise
  /// block_causal: the pass that commits a block also gives the next block's first token.
  bool seed_token = false;
  bool threshold_inclusive = true;  ///< confidence >= threshold commits; false: >
  ConfidenceKind confidence = ConfidenceKind::raw;
  std::int64_t min_prompt_length = 0;
};

/// Reads and checks fastdllm.json: format version, every key's type and range, every file's
/// presence and size, and the graph file's SHA-256 (`fastdllm check` hashes the weights too).
/// Errors: Error{bad_package} naming file, key, expected, found.
[[nodiscard]] FASTDLLM_API PackageInfo read_package(const std::filesystem::path& folder);

/// One file of a package, hashed: its size, or what is wrong with it.
struct FileCheck {
  std::string name;
  bool passed = false;
  std::string detail;
};

/// What read_package() leaves out because gigabytes take their time: hashes every file that the
/// package lists, by name, and names those that it does not list. Errors: as read_package().
[[nodiscard]] FASTDLLM_API std::vector<FileCheck> check_files(const std::filesystem::path& folder);

}  // namespace fastdllm
