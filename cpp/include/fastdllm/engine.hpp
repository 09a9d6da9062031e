// Token ids in, token ids out: a package, loaded once, that answers prompts.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fastdllm/backend.hpp"
#include "fastdllm/error.hpp"
#include "fastdllm/export.h"
#include "fastdllm/generation.hpp"
#include "fastdllm/package.hpp"

namespace fastdllm {

/// How much an engine takes on.
struct EngineLimits {
  std::int64_t max_batch = 8;       ///< >= 1: requests that are decoded side by side
  std::int64_t max_waiting = 1024;  ///< >= 0: requests beyond these that wait for a place
  std::int64_t cache_bytes = 0;     ///< K/V of all requests; what one may need follows from the
                                    ///< package and its length. 0 = half of the physical memory,
                                    ///< or of what is free on the GPU that holds them
};

/// What an engine has to do at a moment.
struct EngineLoad {
  std::int64_t running = 0;           ///< requests that are decoded side by side
  std::int64_t waiting = 0;           ///< requests that wait for a place
  std::int64_t cache_bytes_used = 0;  ///< set aside for the K/V of those that run
  EngineLimits limits;                ///< cache_bytes as resolved, in bytes
};

/// Called on the engine's thread when a request has ended, before Request::result() returns on
/// another thread; must not throw. On this thread the result is there: result() does not wait.
using DoneCallback = std::function<void()>;

struct Job;

/// A request under way. Copies are the same request; thread-safe; may outlive the engine, which
/// ends the requests it leaves behind with `abort`. An empty one has no request to ask about.
class FASTDLLM_API Request {
 public:
  Request() = default;
  /// Waits until the request has ended and on_done has returned. Errors: those of
  /// Engine::generate() during a pass and what the callback threw; Error{bad_config} on the
  /// engine's own thread while the request runs: it would wait for itself.
  [[nodiscard]] GenerationResult result() const;
  /// Waits so long at most, on the engine's own thread not at all; whether result() would return
  /// at once.
  [[nodiscard]] bool wait_for(std::chrono::nanoseconds time) const;
  /// Whether the request has ended; on_done may still run.
  [[nodiscard]] bool done() const;
  /// Ends the request before its next pass with `abort`; one that has ended stays as it is.
  void cancel() const noexcept;
  /// Errors: Error{bad_config} on the engine's own thread, and in a process that was forked from
  /// the engine's.
  void require_other_thread() const;
  [[nodiscard]] bool on_engine_thread() const noexcept;

 private:
  friend class Engine;
  explicit Request(std::shared_ptr<Job> job) : job_(std::move(job)) {}
  std::shared_ptr<Job> job_;
};

/// Requests of all threads are decoded side by side, pass by pass, on a thread of the engine's own
/// (continuous batching). A request's tokens do not depend on the others: see ARCHITECTURE.md.
/// Every function may be called from every thread, but from a callback those only that do not wait.
///
/// A block-causal engine keeps the K/V of finished blocks from request to request: a prompt that
/// begins like an earlier one and its answer (a conversation's next turn) computes what is new
/// only.
class FASTDLLM_API Engine {
 public:
  /// Errors: Error{bad_package} for the folder, Error{backend} for the inference library,
  /// Error{bad_config} for limits out of range.
  explicit Engine(const std::filesystem::path& package, const SessionOptions& options = {},
                  const EngineLimits& limits = {});
  /// For a backend of your own (tests do this). The session must have the package's graph contract.
  Engine(PackageInfo package, std::unique_ptr<Session> session, const EngineLimits& limits = {});
  /// Ends the requests under way.
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  /// Decodes max_new_tokens positions after `prompt_ids` ([P] ids in [0, vocab_size), no mask
  /// token). Errors: Error{bad_config}, Error{overloaded} before any pass; Error{numeric},
  /// Error{backend} during one; the engine stays usable after each.
  [[nodiscard]] GenerationResult generate(std::span<const std::int32_t> prompt_ids,
                                          const GenerationConfig& config = {},
                                          const CommitCallback& on_commit = {});
  /// The same without waiting. Both callbacks run on the engine's thread and hold up all requests;
  /// what on_commit throws ends its own request.
  [[nodiscard]] Request submit(std::span<const std::int32_t> prompt_ids,
                               const GenerationConfig& config = {}, CommitCallback on_commit = {},
                               DoneCallback on_done = {});

  /// Fills the mask tokens among `canvas_ids` ([L], at least one of them a mask token); the others
  /// never change. The result is the whole canvas, events' positions are indices into it. Nothing
  /// ends it early, max_new_tokens is ignored, blocks count from the first gap. Errors: as
  /// generate().
  [[nodiscard]] GenerationResult infill(std::span<const std::int32_t> canvas_ids,
                                        const GenerationConfig& config = {},
                                        const CommitCallback& on_commit = {});
  [[nodiscard]] Request submit_infill(std::span<const std::int32_t> canvas_ids,
                                      const GenerationConfig& config = {},
                                      CommitCallback on_commit = {}, DoneCallback on_done = {});

  /// One plain pass without cache: f32 logits [positions.size(), vocab_size], before any logit
  /// shift. Mask tokens are allowed in `ids`. block_length: of block-causal attention, none = the
  /// package's. Errors: as generate().
  [[nodiscard]] std::vector<float> logits(std::span<const std::int32_t> ids,
                                          std::span<const std::int32_t> positions,
                                          std::optional<std::int64_t> block_length = {});

  /// Errors: Error{bad_config} on the engine's own thread, that is in a callback, which must not
  /// wait for the engine, and in a process that was forked after the engine's first request.
  void require_other_thread() const;

  [[nodiscard]] const PackageInfo& package() const noexcept;
  /// Never waits for a pass; also for callbacks.
  [[nodiscard]] EngineLoad load() const;
  /// The backend's name, version and device, for people.
  [[nodiscard]] std::string backend() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastdllm
