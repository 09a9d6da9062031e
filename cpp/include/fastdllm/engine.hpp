// Token ids in, token ids out: a package, loaded once, that answers prompts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fastdllm/backend.hpp"
#include "fastdllm/error.hpp"
#include "fastdllm/generation.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm {

/// A block-causal engine keeps the K/V of finished blocks from call to call: a prompt that begins
/// like the last one and its answer (a conversation's next turn) computes what is new only.
///
/// Calls from several threads are served one after another; a call from inside an engine's own
/// commit callback is an Error{bad_config}. Engines are independent of each other.
class Engine {
 public:
  /// Errors: Error{bad_package} for the folder, Error{backend} for the inference library.
  explicit Engine(const std::filesystem::path& package, const SessionOptions& options = {});
  /// For a backend of your own (tests do this). The session must have the package's graph contract.
  Engine(PackageInfo package, std::unique_ptr<Session> session);
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  /// Decodes max_new_tokens positions after `prompt_ids` ([P] ids in [0, vocab_size), no mask
  /// token). Errors: Error{bad_config} before any pass; Error{numeric}, Error{backend} during one;
  /// the engine stays usable after each.
  [[nodiscard]] GenerationResult generate(std::span<const std::int32_t> prompt_ids,
                                          const GenerationConfig& config = {},
                                          const CommitCallback& on_commit = {});

  /// One plain pass without cache: f32 logits [positions.size(), vocab_size], before any logit
  /// shift. Mask tokens are allowed in `ids`. block_length: of block-causal attention, none = the
  /// package's. Errors: as generate().
  [[nodiscard]] std::vector<float> logits(std::span<const std::int32_t> ids,
                                          std::span<const std::int32_t> positions,
                                          std::optional<std::int64_t> block_length = {});

  [[nodiscard]] const PackageInfo& package() const noexcept;
  /// The backend's name, version and device, for people.
  [[nodiscard]] std::string backend() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastdllm
