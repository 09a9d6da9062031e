// Runs passes: fills the graph's inputs from a plan, binds the block cache, hands back predictions.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "block_cache.hpp"
#include "fastdllm/backend.hpp"
#include "fastdllm/package.hpp"
#include "pass.hpp"

namespace fastdllm {

/// What a pass says of its N wanted rows; B = 2 when guided, else 1. Borrowed until the next pass.
struct Predictions {
  std::span<const std::int64_t> token_ids;  ///< [B * N] arg-max without the mask token
  std::span<const float> complement;        ///< [B * N] 1 - softmax probability of it
  std::span<const float> logits;            ///< [B * N * V], empty unless asked for
};

class Model {
 public:
  /// Checks that the graph has every tensor of the contract with the package's shapes and types.
  /// Errors: Error{bad_package} naming the tensor, expected and found.
  Model(PackageInfo package, std::unique_ptr<Session> session);

  /// Prepares for a request. prompt_length: rows that the guidance row has masked; guided: feed a
  /// second row of the batch with the prompt masked. want_logits: bind the logits instead of the
  /// arg-max. cache_rows: most rows that a pass will ask to keep.
  struct Request {
    std::int64_t canvas_length = 0;
    std::int64_t max_logit_rows = 0;
    std::int64_t cache_rows = 0;
    std::int64_t guided_prompt_length = -1;  ///< -1: no guidance
    bool want_logits = false;
  };
  void begin(const Request& request);

  /// ids: the canvas. Errors: Error{backend}.
  [[nodiscard]] Predictions run(const Pass& pass, std::span<const std::int32_t> ids);

  [[nodiscard]] const PackageInfo& package() const noexcept { return package_; }
  [[nodiscard]] Session& session() noexcept { return *session_; }
  [[nodiscard]] const Session& session() const noexcept { return *session_; }
  [[nodiscard]] std::int64_t batch() const noexcept;
  /// Seconds spent in the backend's runs since begin().
  [[nodiscard]] double graph_seconds() const noexcept { return graph_seconds_; }
  [[nodiscard]] std::int64_t cache_bytes() const noexcept { return cache_.bytes(); }

 private:
  struct Tensors {
    std::size_t input_ids, position_ids, attention_mask, logit_indices, present_length;
    std::size_t token_ids, complement, logits;
    std::vector<std::size_t> past, present;  // key and value of layer 0, of layer 1, ...
  };

  [[nodiscard]] std::size_t find_input(std::string_view name, ElementType type,
                                       std::vector<std::int64_t> shape) const;
  [[nodiscard]] std::size_t find_output(std::string_view name, ElementType type,
                                        std::vector<std::int64_t> shape) const;
  void bind_rows(const Pass& pass, std::span<const std::int32_t> ids);
  void bind_logit_rows(const Pass& pass);
  void bind_cache(const Pass& pass);

  PackageInfo package_;
  std::unique_ptr<Session> session_;
  Tensors tensors_;
  BlockCache cache_;
  Request request_;
  double graph_seconds_ = 0.0;
  bool past_bound_ = false;  // the cache is bound as past, as the last refresh left it
  bool present_bound_ = false;
  Shape bound_rows_;  // [B, T] and P + T as last bound: the steps of a block bind them once
  std::int64_t bound_attended_ = 0;

  std::vector<std::int64_t> input_ids_, position_ids_, logit_indices_, token_ids_;
  std::vector<std::uint8_t> attention_mask_;
  std::vector<float> complement_, logits_;
  std::int64_t present_length_ = 0;
};

}  // namespace fastdllm
