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

/// What a pass says of its N wanted rows; B = 2 when guided, else 1. Empty where not asked for.
/// Borrowed until the next pass.
struct Predictions {
  std::span<const std::int64_t> token_ids;   ///< [B * N] arg-max without the mask token
  std::span<const float> complement;         ///< [B * N] 1 - softmax probability of it
  std::span<const float> second_confidence;  ///< [B * N] that of the next best token
  std::span<const float> entropy;            ///< [B * N] nats
  std::span<const float> logits;             ///< [B * N * V]
};

/// Which predictions a request's passes hand back: logits alone, or token_ids and complement with
/// what else is named.
struct Wanted {
  bool logits = false;
  bool second_confidence = false;
  bool entropy = false;
};

class Model {
 public:
  /// Checks that the graph has every tensor of the contract with the package's shapes and types.
  /// Errors: Error{bad_package} naming the tensor, expected and found.
  Model(PackageInfo package, std::unique_ptr<Session> session);

  struct Request {
    std::int64_t canvas_length = 0;
    std::int64_t max_logit_rows = 0;
    std::int64_t cache_rows = 0;             ///< most rows that a pass will ask to keep
    std::int64_t guided_prompt_length = -1;  ///< a second row of the batch has these ids masked;
                                             ///< -1: no guidance
    Wanted wanted{};
  };
  void begin(const Request& request);

  /// ids: the canvas. Errors: Error{backend}; the committed rows are then as they were.
  [[nodiscard]] Predictions run(const Pass& pass, std::span<const std::int32_t> ids);

  /// Committed rows that a canvas beginning with `ids` can go on from: whole blocks of this length
  /// with the same ids.
  [[nodiscard]] std::int64_t reusable_rows(std::span<const std::int32_t> ids,
                                           std::int64_t block_length) const noexcept;
  [[nodiscard]] std::int64_t committed_rows() const noexcept { return cache_.committed_length(); }
  /// Forgets them, and sets the block length that the next ones will be computed with.
  void drop_committed(std::int64_t block_length) noexcept;

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
    std::size_t token_ids, complement, second_confidence, entropy, logits;
    std::vector<std::size_t> past, present;  // key and value of layer 0, of layer 1, ...
  };

  [[nodiscard]] std::size_t find_input(std::string_view name, ElementType type,
                                       std::vector<std::int64_t> shape) const;
  [[nodiscard]] std::size_t find_output(std::string_view name, ElementType type,
                                        std::vector<std::int64_t> shape) const;
  [[nodiscard]] std::int64_t past_length(const Pass& pass) const noexcept;
  void bind_rows(const Pass& pass, std::span<const std::int32_t> ids);
  void bind_mask(const Pass& pass, std::int64_t attended);
  void bind_logit_rows(const Pass& pass);
  void bind_past(const Pass& pass);
  void bind_present(const Pass& pass);
  void commit(const Pass& pass, std::span<const std::int32_t> ids);

  PackageInfo package_;
  std::unique_ptr<Session> session_;
  Tensors tensors_;
  BlockCache cache_;
  Request request_;
  double graph_seconds_ = 0.0;

  // What is bound: the steps of a block bind their rows and cache once.
  Shape bound_rows_, bound_mask_;
  const void* bound_past_ = nullptr;
  Shape bound_past_shape_;
  bool present_bound_ = false;

  std::vector<std::int64_t> input_ids_, position_ids_, logit_indices_, token_ids_;
  std::vector<std::uint8_t> everything_, mask_;  // attention_mask: all true, and by block
  std::vector<float> complement_, second_confidence_, entropy_, logits_;
  std::int64_t present_length_ = 0;

  std::vector<std::int32_t> committed_ids_;
  std::int64_t committed_block_length_ = 0;
};

}  // namespace fastdllm
