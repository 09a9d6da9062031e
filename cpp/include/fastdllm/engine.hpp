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

/// How many requests an engine accepts, and how much memory it uses for them.
struct EngineLimits {
  std::int64_t max_batch = 8;       ///< >= 1: requests that are decoded side by side
  std::int64_t max_waiting = 1024;  ///< >= 0: requests that may wait for a place, beyond max_batch
  /// Bytes for the K/V cache of all requests together, and for their attention scores where the
  /// graph holds them all (PackageInfo::score_bytes). What one request needs follows from the
  /// package and the request's length. 0 = half of the physical memory, or half of the free memory
  /// of the GPU where the cache is.
  std::int64_t cache_bytes = 0;
};

/// How busy an engine is at one moment.
struct EngineLoad {
  std::int64_t running = 0;           ///< requests that are decoded side by side
  std::int64_t waiting = 0;           ///< requests that wait for a place
  std::int64_t cache_bytes_used = 0;  ///< bytes reserved for running requests: K/V, scores
  EngineLimits limits;                ///< the engine's limits; cache_bytes in bytes, never 0
};

/// Called on the engine's thread when a request has ended, before Request::result() returns on
/// another thread. It must not throw. Inside the callback, result() returns at once.
using DoneCallback = std::function<void()>;

struct Job;

/// A submitted request. Copies refer to the same request. All functions are thread-safe. A Request
/// may outlive its engine: destroying the engine ends the request with FinishReason::abort. A
/// default-constructed Request refers to no request and must not be asked for anything.
class FASTDLLM_API Request {
 public:
  Request() = default;
  /// Waits until the request has ended and on_done has returned. Errors: those of
  /// Engine::generate() during a pass; an exception that the callback threw; Error{bad_config} on
  /// the engine's own thread while the request runs, because it would wait for itself.
  [[nodiscard]] GenerationResult result() const;
  /// Waits at most `time` (on the engine's own thread not at all). Returns whether result() would
  /// return at once.
  [[nodiscard]] bool wait_for(std::chrono::nanoseconds time) const;
  /// Whether the request has ended. on_done may still be running.
  [[nodiscard]] bool done() const;
  /// Ends the request before its next pass, with FinishReason::abort. Does nothing when the request
  /// has already ended.
  void cancel() const noexcept;
  /// Errors: Error{bad_config} on the engine's own thread, and in a process that was forked from
  /// the engine's process.
  void require_other_thread() const;
  [[nodiscard]] bool on_engine_thread() const noexcept;

 private:
  friend class Engine;
  explicit Request(std::shared_ptr<Job> job) : job_(std::move(job)) {}
  std::shared_ptr<Job> job_;
};

/// A loaded package that decodes requests of token ids:
/// @code
///   fastdllm::Engine engine(argv[1], {.threads = 2});
///   ...
///   const fastdllm::GenerationConfig config{.max_new_tokens = 64, .threshold = 0.9};
///   const fastdllm::GenerationResult result = engine.generate(prompt, config);
/// @endcode
///
/// The engine has one thread of its own. It decodes the requests of all callers side by side, pass
/// by pass; requests join and leave the batch between passes (continuous batching). In float32 a
/// request's tokens do not depend on the requests beside it: see docs/batching.md.
///
/// All functions are thread-safe. A callback runs on the engine's thread, so it may only call
/// functions that do not wait for a request.
///
/// With a block-causal package, the K/V rows of finished blocks are kept for later requests. A
/// prompt that begins with the ids of an earlier request, such as the next turn of a conversation,
/// computes only its new rows.
class FASTDLLM_API Engine {
 public:
  /// Loads the package folder. Errors: Error{bad_package} for the folder, Error{backend} for the
  /// inference library, Error{bad_config} for limits out of range.
  explicit Engine(const std::filesystem::path& package, const SessionOptions& options = {},
                  const EngineLimits& limits = {});
  /// For an own backend or a test. The session's inputs and outputs must be those that
  /// export/PACKAGE.md describes. Errors: as above.
  Engine(PackageInfo package, std::unique_ptr<Session> session, const EngineLimits& limits = {});
  /// Ends all requests with FinishReason::abort.
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  /// Decodes config.max_new_tokens positions after the prompt and waits for the result.
  /// prompt_ids: shape [P], ids in [0, vocab_size) without the mask token; copied. on_commit:
  /// called after every pass over a block. Errors: Error{bad_config} and Error{overloaded} before
  /// the first pass; Error{numeric} and Error{backend} during a pass. The engine stays usable after
  /// an error.
  [[nodiscard]] GenerationResult generate(std::span<const std::int32_t> prompt_ids,
                                          const GenerationConfig& config = {},
                                          const CommitCallback& on_commit = {});
  /// Like generate(), but returns at once. Both callbacks run on the engine's thread, and all
  /// requests wait meanwhile. An exception thrown by on_commit ends only its own request.
  [[nodiscard]] Request submit(std::span<const std::int32_t> prompt_ids,
                               const GenerationConfig& config = {}, CommitCallback on_commit = {},
                               DoneCallback on_done = {});

  /// Replaces the mask tokens in `canvas_ids` and keeps all other ids. canvas_ids: shape [L], with
  /// at least one mask token; copied. The result's token_ids are the whole canvas, and the
  /// positions in events are indices into it. Stop tokens do not end it and max_new_tokens is
  /// ignored. Blocks are counted from the first mask token. Errors: as generate().
  [[nodiscard]] GenerationResult infill(std::span<const std::int32_t> canvas_ids,
                                        const GenerationConfig& config = {},
                                        const CommitCallback& on_commit = {});
  /// Like infill(), but returns at once; callbacks as for submit().
  [[nodiscard]] Request submit_infill(std::span<const std::int32_t> canvas_ids,
                                      const GenerationConfig& config = {},
                                      CommitCallback on_commit = {}, DoneCallback on_done = {});

  /// Runs the model once, without a cache, and waits for the result. ids: shape [T]; mask tokens
  /// are allowed. positions: indices into `ids`. block_length: of block-causal attention; none =
  /// the package's. Returns float32 logits of shape [positions.size(), vocab_size], row-major, as
  /// the model gives them: PackageInfo::logits_shift is not applied. Errors: as generate().
  [[nodiscard]] std::vector<float> logits(std::span<const std::int32_t> ids,
                                          std::span<const std::int32_t> positions,
                                          std::optional<std::int64_t> block_length = {});

  /// Errors: Error{bad_config} on the engine's own thread (inside a callback, which must not wait
  /// for the engine), and in a process that was forked after the engine's first request.
  void require_other_thread() const;

  [[nodiscard]] const PackageInfo& package() const noexcept;
  /// Never waits for a pass, so callbacks may call it.
  [[nodiscard]] EngineLoad load() const;
  /// The backend's name, version and device, as text to show to a user.
  [[nodiscard]] std::string backend() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fastdllm
