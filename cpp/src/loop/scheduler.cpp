#include "loop/scheduler.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

EngineLimits resolved(EngineLimits limits, const Session& session) {
  if (limits.cache_bytes != 0) return limits;
  const std::int64_t on_device = session.free_device_bytes();
  limits.cache_bytes = on_device > 0 ? on_device / 2 : half_of_memory();
  return limits;
}

}  // namespace

Scheduler::Scheduler(PackageInfo package, std::unique_ptr<Session> session,
                     const EngineLimits& limits)
    : model_(std::move(package), std::move(session)),
      largest_run_(model_.session().largest_run()),
      limits_(resolved(limits, model_.session())),
      pool_(model_.session(), model_.package(), limits_,
            std::min(limits_.max_batch, largest_run_.batch) > 1) {}

std::shared_ptr<Job> Scheduler::submit(std::unique_ptr<UnmaskLoop> loop, Lease lease,
                                       std::function<void()> on_done) {
  if (serving_->is_elsewhere()) serving_->require_waiting_makes_sense();
  auto job = std::make_shared<Job>(serving_);
  job->lease = std::move(lease);
  job->turn.size = loop->max_rows();
  job->loop = std::move(loop);
  job->on_done = std::move(on_done);
  const std::lock_guard lock(mutex_);
  if (under_way_ - limits_.max_waiting >= limits_.max_batch) {
    throw Error(
        ErrorCode::overloaded,
        concat(under_way_, " requests run or wait; expected fewer than max_batch + max_waiting, ",
               limits_.max_batch, " + ", limits_.max_waiting));
  }
  start_thread();
  waiting_.push_back(job);
  ++under_way_;
  changed_.notify_one();
  return job;
}

void Scheduler::between_passes(const std::function<void(Model&)>& call) {
  serving_->require_waiting_makes_sense();
  std::packaged_task<void()> task([&] { call(model_); });
  std::future<void> done = task.get_future();
  {
    const std::lock_guard lock(mutex_);
    calls_.push_back(std::move(task));
    start_thread();
  }
  changed_.notify_one();
  done.get();
}

EngineLoad Scheduler::load() const {
  const std::lock_guard lock(mutex_);
  const std::int64_t waiting = std::ssize(waiting_);
  return {.running = under_way_ - waiting,
          .waiting = waiting,
          .cache_bytes_used = pool_.used_bytes(),
          .limits = limits_};
}

// Not before it is needed: a process may fork between loading and decoding. The thread keeps what
// it works on alive.
void Scheduler::start_thread() {
  if (stopping_) throw Error(ErrorCode::bad_config, "the engine is being destroyed");
  if (thread_.joinable()) return;
  serving_->process = getpid();
  thread_ = std::thread([self = shared_from_this()] { self->serve(); });
}

void Scheduler::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (!thread_.joinable()) return;
  if (serving_->is_current()) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

// A callback may have forked: the other process has no other thread and nobody who waits, so this
// one ends there without touching what other threads may have locked.
void Scheduler::serve() {
  serving_->id.store(std::this_thread::get_id());
  while (wait_for_work()) {
    step();
    if (!serving_->is_elsewhere()) continue;
    new std::shared_ptr<Scheduler>(shared_from_this());  // its threads are not here to be ended
    return;
  }
  end_all();
}

// Waits until there is something to do, and does the calls that come between passes. False: no
// more.
bool Scheduler::wait_for_work() {
  std::unique_lock lock(mutex_);
  changed_.wait(
      lock, [&] { return stopping_ || !calls_.empty() || !waiting_.empty() || !running_.empty(); });
  if (stopping_) return false;
  auto calls = std::exchange(calls_, {});
  lock.unlock();
  for (auto& call : calls) call();
  return true;
}

void Scheduler::end_all() {
  {
    const std::lock_guard lock(mutex_);
    calls_.clear();  // broken promises: who waits is told
    running_.insert(running_.end(), waiting_.begin(), waiting_.end());
    waiting_.clear();
  }
  for (; !running_.empty(); running_.pop_back()) {
    running_.back()->loop->abort();
    leave(*running_.back());
  }
}

}  // namespace fastdllm
