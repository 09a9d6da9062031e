// Runs passes: fills the graph's inputs from a plan, binds the block cache, returns predictions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cache/block_cache.hpp"
#include "cache/cache_stack.hpp"
#include "cache/pass.hpp"
#include "fastdllm/backend.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm {

/// What a pass says of its wanted rows, first ones of N; B = 2 when guided, else 1. Empty where not
/// asked for. Borrowed until the next run.
struct Predictions {
  std::span<const std::int64_t> token_ids;   ///< [B * N] arg-max without the mask token
  std::span<const float> complement;         ///< [B * N] 1 - softmax probability of it
  std::span<const float> second_confidence;  ///< [B * N] that of the next best token
  std::span<const float> entropy;            ///< [B * N] nats
  std::span<const float> logits;             ///< [B * N * V]
  std::size_t stride = 0;                    ///< N, at least 2
};

/// Which predictions a request's passes hand back: logits alone, or token_ids and complement with
/// what else is named.
struct NeededOutputs {
  bool logits = false;
  bool second_confidence = false;
  bool entropy = false;
};

/// One request's share of a graph run. All is borrowed.
struct Feed {
  const Pass* pass = nullptr;
  std::span<const std::int32_t> ids;    ///< the canvas
  std::span<const std::uint8_t> given;  ///< per position of it; guidance masks the given ones
  BlockCache* cache = nullptr;          ///< of batch 2: guided
  std::int64_t cache_rows = 0;          ///< most rows that a pass will ask to keep
  std::int64_t logit_rows = 0;          ///< most rows whose logits a pass will want
  NeededOutputs needed;
  Predictions predictions;  ///< filled by the run
  double seconds = 0.0;     ///< likewise, spent in the backend
};

class Model {
 public:
  /// Checks that the graph has every tensor of the contract with the package's shapes and types.
  /// Errors: Error{bad_package} naming the tensor, expected and found.
  Model(PackageInfo package, std::unique_ptr<Session> session);

  /// Whether two feeds can share a run. The shapes of their tensors are then the same as they are
  /// alone, which keeps f32 results the same to the bit where a backend's kernels compute each row
  /// by itself.
  [[nodiscard]] static bool can_share(const Feed& a, const Feed& b) noexcept;

  /// Runs the graph once for feeds that can share it. Errors: Error{backend}; committed rows are
  /// then as they were.
  void run(std::span<Feed* const> feeds);

  /// The limit of bytes of stacked K/V copies for shared runs, from now on.
  void limit_stacks(std::int64_t bytes) noexcept;

  [[nodiscard]] const PackageInfo& package() const noexcept { return package_; }
  [[nodiscard]] Session& session() noexcept { return *session_; }
  [[nodiscard]] const Session& session() const noexcept { return *session_; }

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
  void bind_input(std::size_t index, const TensorView& view);
  void bind_output(std::size_t index, const TensorView& view, bool is_needed);
  CacheStack& stack_of(std::int64_t length, std::int64_t count);
  [[nodiscard]] std::int64_t stacked_bytes() const noexcept;
  void bind_rows();
  void bind_mask();
  void bind_logit_rows();
  void bind_past();
  void bind_present();
  void hand_out();

  PackageInfo package_;
  std::unique_ptr<Session> session_;
  Tensors tensors_;
  std::vector<std::unique_ptr<CacheStack>> stacks_;  // by length; the one used last is last
  std::int64_t stack_limit_ = INT64_MAX;
  bool equal_shapes_;
  std::vector<std::optional<TensorView>> bound_inputs_, bound_outputs_;

  // The current run.
  std::vector<Feed*> feeds_, unordered_;
  std::vector<CacheStack::Entry> entries_;
  std::int64_t batch_ = 0;
  std::int64_t logit_rows_ = 0;  // of each

  std::vector<std::int64_t> input_ids_, position_ids_, logit_indices_, token_ids_;
  std::vector<std::uint8_t> mask_;
  std::vector<float> complement_, second_confidence_, entropy_, logits_;
  std::int64_t present_length_ = 0;
};

}  // namespace fastdllm
