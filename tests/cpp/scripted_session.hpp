// A backend without a model: it replays what a test scripts and records what it was asked.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "contract_session.hpp"
#include "fastdllm/backend.hpp"
#include "fastdllm/engine.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm::testing {

inline constexpr std::int32_t mask_id = 15;
inline constexpr std::int32_t eos_id = 14;
inline constexpr std::int64_t vocab_size = 16;

[[nodiscard]] inline PackageInfo scripted_package() {
  PackageInfo package;
  package.format_version = 1;
  package.num_layers = 2;
  package.num_heads = package.num_kv_heads = 2;
  package.head_dim = 4;
  package.hidden_size = 8;
  package.vocab_size = vocab_size;
  package.max_context_length = 512;
  package.mask_token_id = mask_id;
  package.eos_token_ids = {eos_id};
  return package;
}

/// Blocks of 4; plain, or with logit shift and seed token.
[[nodiscard]] inline PackageInfo block_causal_package(bool shifted = false) {
  PackageInfo package = scripted_package();
  package.attention = AttentionKind::block_causal;
  package.block_length = 4;
  package.logits_shift = shifted ? 1 : 0;
  package.seed_token = shifted;
  package.threshold_inclusive = false;
  return package;
}

struct Answer {
  std::int64_t token_id = 3;
  double confidence = 0.5;
  double second_confidence = 0.0;
  double entropy = 1.0;
};

/// What one run was asked.
struct RecordedPass {
  std::vector<std::int64_t> ids, positions, wanted;  // wanted: absolute positions
  std::int64_t batch = 0, past_length = 0, present_length = 0, attended = 0;
  std::int64_t mask_rows = 0;
  std::vector<std::uint8_t> mask;  // [batch, mask_rows, attended]
  bool logits_bound = false;
};

/// Keys and values of a row at position p are p + 1 everywhere, so a step can tell whose K/V it
/// sees.
class ScriptedSession final : public ContractSession {
 public:
  using Script = std::function<Answer(std::int64_t pass, std::int64_t position)>;
  using LogitScript = std::function<float(std::int64_t row, std::int64_t position, std::int64_t v)>;

  explicit ScriptedSession(const PackageInfo& package = scripted_package())
      : ContractSession(package) {}

  Script script = [](std::int64_t, std::int64_t) { return Answer{}; };
  LogitScript logit_script;
  std::vector<RecordedPass> passes;
  std::atomic<std::int64_t> runs{0};
  std::function<void(std::int64_t batch)> before_run;  // may throw
  std::function<void(std::size_t bytes)> before_allocation;
  /// Positions whose cached rows the last run saw, from the past key of layer 0.
  std::vector<std::int64_t> seen_past;
  RunSizes largest{};

  RunSizes largest_run() const override { return largest; }
  std::unique_ptr<Memory> allocate_cache(std::size_t bytes) override {
    if (before_allocation) before_allocation(bytes);
    return ContractSession::allocate_cache(bytes);
  }
  void run() override;
  std::string description() const override { return "scripted"; }

 private:
  void write_present(const RecordedPass& pass, const std::string& suffix);
  void read_past(std::int64_t length);
  void write_answer(std::size_t i, const Answer& answer);
};

/// The token that a row predicts is its own position, modulo ten; left rows are surer.
[[nodiscard]] inline Answer own_position(std::int64_t, std::int64_t position) {
  return {.token_id = position % 10, .confidence = 0.8 - 0.001 * static_cast<double>(position)};
}

/// An engine and the session behind it.
struct Scripted {
  explicit Scripted(const PackageInfo& package = scripted_package(),
                    ScriptedSession::Script script = own_position, const EngineLimits& limits = {})
      : Scripted(package, std::make_unique<ScriptedSession>(package), std::move(script), limits) {}
  explicit Scripted(const EngineLimits& limits)
      : Scripted(scripted_package(), own_position, limits) {}

  ScriptedSession* session;
  Engine engine;

 private:
  Scripted(const PackageInfo& package, std::unique_ptr<ScriptedSession> made,
           ScriptedSession::Script script, const EngineLimits& limits)
      : session(made.get()), engine(package, std::move(made), limits) {
    if (script) session->script = std::move(script);  // {}: every row proposes 3
  }
};

}  // namespace fastdllm::testing
