// Who runs next: many requests, one model, a graph run at a time.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "cache/model.hpp"
#include "fastdllm/engine.hpp"
#include "loop/unmask_loop.hpp"

namespace fastdllm {

/// The thread that runs the passes and its process; {} and 0 before it starts. Outlives the
/// scheduler with the handles.
struct ServingThread {
  std::atomic<std::thread::id> id{};
  std::atomic<pid_t> process{0};

  /// Whether this process was forked from one where the thread had started: here there is none.
  [[nodiscard]] bool is_elsewhere() const noexcept;
  [[nodiscard]] bool is_current() const noexcept;
  /// Errors: Error{bad_config} on the thread, which must not wait for itself, and in a forked
  /// process, where nobody serves.
  void require_waiting_makes_sense() const;
};

/// A request on its way, shared by its Request handles and the scheduler.
struct Job {
  explicit Job(std::shared_ptr<const ServingThread> serving) : thread(std::move(serving)) {}

  std::shared_ptr<const ServingThread> thread;
  std::unique_ptr<UnmaskLoop> loop;  // the scheduler's thread only
  std::function<void()> on_done;     // likewise
  std::unique_ptr<BlockCache> cache;
  Feed* feed = nullptr;        // the pass it wants
  std::int64_t bytes = 0;      // of cache that it may come to hold
  std::int64_t stacked = 0;    // of these side by side with others'
  std::int64_t charged = 0;    // of the memory there is, once it runs
  double size = 0.0;           // rows that it may take
  double served = 0.0;         // rows computed for it, times the square of its size
  std::int64_t postponed = 0;  // rows computed for others since its last pass
  std::atomic<bool> cancelled{false};
  std::promise<GenerationResult> promise;
  std::shared_future<GenerationResult> answer{promise.get_future()};
  std::promise<void> callbacks_over;  // on_done has returned, and no callback is kept
  std::shared_future<void> settled{callbacks_over.get_future()};
};

/// Serves requests on a thread of its own, pass by pass. Requests are admitted in order while the
/// batch and the memory have room. Those under way have shares of the time that shrink with the
/// square of what they may take at most, and what is new has had nothing yet: a short request is
/// not held up by a long one, equal ones take turns. One that was passed over for long is next
/// whatever its share. Requests of about the same size whose passes have the same shapes share a
/// graph run.
class Scheduler : public std::enable_shared_from_this<Scheduler> {
 public:
  Scheduler(PackageInfo package, std::unique_ptr<Session> session, const EngineLimits& limits);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// Errors: Error{overloaded} when too many wait, Error{bad_config} for a request that can never
  /// have the memory it may need.
  std::shared_ptr<Job> submit(std::unique_ptr<UnmaskLoop> loop, std::function<void()> on_done);
  /// Runs `call` between two passes and returns when it has run; its errors come out.
  void between_passes(const std::function<void(Model&)>& call);
  [[nodiscard]] EngineLoad load() const;
  /// Ends every request with abort and waits for the thread, unless that is who calls.
  void stop() noexcept;

  [[nodiscard]] const ServingThread& serving() const noexcept { return *serving_; }
  [[nodiscard]] const Model& model() const noexcept { return model_; }

 private:
  void start_thread();
  void serve();
  void admit();
  void step();
  [[nodiscard]] bool plan(Job& job);
  [[nodiscard]] Job* choose();
  void form_group(Job& first);
  void require_runs(const RunSizes& sizes) const;
  void run_group();
  void finish(Job& job, std::exception_ptr problem = {});
  void leave(Job& job, std::exception_ptr problem);
  [[nodiscard]] std::unique_ptr<BlockCache> acquire(const UnmaskLoop& loop);
  [[nodiscard]] std::unique_ptr<BlockCache> new_cache(const UnmaskLoop& loop);
  void evict() noexcept;
  [[nodiscard]] std::int64_t rows_bytes(std::int64_t rows) const noexcept;
  [[nodiscard]] std::int64_t own_bytes(const UnmaskLoop& loop) const noexcept;
  [[nodiscard]] std::int64_t excess_bytes(const BlockCache& cache, const UnmaskLoop& loop) const;
  [[nodiscard]] std::int64_t stacked_bytes(const UnmaskLoop& loop) const noexcept;

  Model model_;
  EngineLimits limits_;
  RunSizes largest_run_;

  // Of the thread alone.
  std::vector<std::shared_ptr<Job>> running_;
  std::vector<Job*> group_;
  std::vector<Feed*> feeds_;
  std::vector<std::unique_ptr<BlockCache>> idle_;  // of requests that have ended, oldest first
  std::uint64_t clock_ = 0;
  std::int64_t stacked_bytes_ = 0;  // of running requests

  // Written by the thread alone.
  std::atomic<std::int64_t> used_bytes_{0};  // of running requests

  // Shared.
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> waiting_;
  std::deque<std::packaged_task<void()>> calls_;
  std::int64_t under_way_ = 0;  // requests that have not ended
  bool stopping_ = false;
  std::thread thread_;
  std::shared_ptr<ServingThread> serving_ = std::make_shared<ServingThread>();
};

}  // namespace fastdllm
