// The engine's thread: many requests, one model, a graph run at a time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cache/model.hpp"
#include "fastdllm/engine.hpp"
#include "loop/cache_pool.hpp"
#include "loop/job.hpp"
#include "loop/turn.hpp"
#include "loop/unmask_loop.hpp"

namespace fastdllm {

/// Serves requests on its own thread, pass by pass. Requests are admitted in order of arrival while
/// the batch and the memory (CachePool) have room; a free place is used in the very next graph run.
/// Running requests get shares of the time (choose_turns). A share falls with the square of the
/// rows that a request may compute, so a long request does not hold up a short one, and equal ones
/// take turns. Requests of about the same size whose passes have the same shapes share a graph run.
class Scheduler : public std::enable_shared_from_this<Scheduler> {
 public:
  Scheduler(PackageInfo package, std::unique_ptr<Session> session, const EngineLimits& limits);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// lease: of the pool, for the loop's needs. Errors: Error{overloaded} when too many wait.
  std::shared_ptr<Job> submit(std::unique_ptr<UnmaskLoop> loop, Lease lease,
                              std::function<void()> on_done);
  /// Runs `call` between two passes and returns when it has run; its errors come out.
  void between_passes(const std::function<void(Model&)>& call);
  [[nodiscard]] EngineLoad load() const;
  /// Ends every request with abort and waits for the thread, unless that is who calls.
  void stop() noexcept;

  [[nodiscard]] const ServingThread& serving() const noexcept { return *serving_; }
  [[nodiscard]] const Model& model() const noexcept { return model_; }
  [[nodiscard]] const RunSizes& largest_run() const noexcept { return largest_run_; }
  [[nodiscard]] const CachePool& pool() const noexcept { return pool_; }

 private:
  void start_thread();
  void serve();
  [[nodiscard]] bool wait_for_work();
  void end_all();

  void step();
  void finish();
  void admit();
  [[nodiscard]] bool plan();
  void choose();
  [[nodiscard]] std::exception_ptr run();
  void take(const std::exception_ptr& failure);
  void leave(Job& job);

  Model model_;
  RunSizes largest_run_;
  EngineLimits limits_;

  // Of the thread alone, but for what the pool says otherwise.
  CachePool pool_;
  std::vector<std::shared_ptr<Job>> running_;
  std::vector<Turn> turns_;         // of the running requests, in their order
  std::vector<std::size_t> group_;  // the running requests whose passes are run together
  std::vector<Feed*> feeds_;

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
