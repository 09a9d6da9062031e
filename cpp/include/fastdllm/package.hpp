// The facts about a model in its package's fastdllm.json. export/PACKAGE.md describes the format.
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

/// The newest package format that can be read; newer ones are refused.
inline constexpr int supported_format_version = 1;

/// The precisions of weights and arithmetic that a package may have; see export/PACKAGE.md.
inline constexpr std::array<std::string_view, 5> precisions{"fp32", "fp16", "bf16", "int8", "int4"};

/// Which positions a row attends to.
enum class AttentionKind {
  bidirectional,  ///< all of them
  block_causal,   ///< position i attends to j iff i / block_length >= j / block_length (integers)
};

/// How the confidence of a proposed token is computed.
enum class ConfidenceKind {
  raw,        ///< the softmax of the model's logits
  processed,  ///< its probability in the distribution that is sampled (temperature, top_p, top_k)
};

[[nodiscard]] FASTDLLM_API std::string_view name_of(AttentionKind kind) noexcept;
[[nodiscard]] FASTDLLM_API std::string_view name_of(ConfidenceKind kind) noexcept;

/// What fastdllm.json says. Lengths are in tokens.
struct PackageInfo {
  std::filesystem::path path;  ///< the package folder
  int format_version = 0;
  std::string family;     ///< to show to a user; no code depends on it
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
  std::int64_t logits_shift = 0;             ///< 0 or 1: row i - logits_shift predicts position i
  std::optional<std::int64_t> block_length;  ///< the default of GenerationConfig::block_length
  /// The default of GenerationConfig::sub_block_length.
  std::optional<std::int64_t> sub_block_length;
  /// block_causal: the pass that caches a finished block also decodes the next block's first token.
  bool seed_token = false;
  /// Whether a confidence equal to the threshold is committed (>=, not >).
  bool threshold_inclusive = true;
  ConfidenceKind confidence = ConfidenceKind::raw;
  std::int64_t min_prompt_length = 0;
  /// Host memory of a pass, in bytes for each pair of a row fed and a row attended to: its graph
  /// holds the attention scores of all pairs at once. 0: it never does, or is from an older export.
  std::int64_t score_bytes = 0;
};

/// Reads and checks fastdllm.json: the format version, the type and range of every key, that every
/// file exists with its size, and the SHA-256 of the graph file. It does not hash the weights,
/// which takes long: check_files() does. Errors: Error{bad_package} with file, key, expected,
/// found.
[[nodiscard]] FASTDLLM_API PackageInfo read_package(const std::filesystem::path& folder);

/// The result of checking one file.
struct FileCheck {
  std::string name;  ///< name of the file; "files" when it is about all of them
  bool passed = false;
  std::string detail;  ///< its size, or what is wrong with it
};

/// Hashes every file that the package lists, weights included, in the order of their names. First
/// in the result is a failed check with the names of files that the package does not list, if there
/// are any. Errors: as read_package().
[[nodiscard]] FASTDLLM_API std::vector<FileCheck> check_files(const std::filesystem::path& folder);

}  // namespace fastdllm
