#include "loop/scheduler.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

// Requests of more than this times the next one's size do not join its pass: they would slow it.
constexpr double peers = 2.0;
// A request is next when this many times the rows it wants were computed for others.
constexpr std::int64_t patience = 16;

std::int64_t usual_cache_bytes() noexcept {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGE_SIZE);
  return pages > 0 && page_bytes > 0 ? std::int64_t{pages} * page_bytes / 2 : INT64_MAX;
}

std::int64_t rows_of(const Job& job) noexcept {
  return job.loop->batch() * std::ssize(job.feed->pass->rows);
}

}  // namespace

bool ServingThread::is_elsewhere() const noexcept {
  const pid_t started = process.load();
  return started != 0 && started != getpid();
}

bool ServingThread::is_current() const noexcept {
  return id.load() == std::this_thread::get_id();
}

void ServingThread::require_waiting_makes_sense() const {
  if (is_elsewhere()) {
    throw Error(ErrorCode::bad_config,
                "the engine has served requests before this process was forked; expected an engine "
                "of its own, or to be forked before the first request");
  }
  if (is_current()) {
    throw Error(
        ErrorCode::bad_config,
        "the engine's own thread would wait for itself: in a callback, use submit or another "
        "engine");
  }
}

Scheduler::Scheduler(PackageInfo package, std::unique_ptr<Session> session,
                     const EngineLimits& limits)
    : model_(std::move(package), std::move(session)),
      limits_(limits),
      largest_run_(model_.session().largest_run()) {
  if (limits_.cache_bytes != 0) return;
  const std::int64_t on_device = model_.session().free_device_bytes();
  limits_.cache_bytes = on_device > 0 ? on_device / 2 : usual_cache_bytes();
}

// A compiled engine has limits; without one nothing is too large.
void Scheduler::require_runs(const RunSizes& sizes) const {
  const auto require = [](std::int64_t size, std::int64_t most, std::string_view what,
                          std::string_view option) {
    if (size <= most) return;
    throw Error(ErrorCode::bad_config,
                concat("the request needs passes of ", size, " ", what, "; the engine takes ", most,
                       " at most: build it with fastdllm build-engine ", option, " ", size));
  };
  require(sizes.batch, largest_run_.batch, "batch rows", "--max-batch");
  require(sizes.cached, largest_run_.cached, "cached rows", "--max-context");
  require(sizes.rows, largest_run_.rows, "rows", "--max-rows");
  require(sizes.wanted, largest_run_.wanted, "rows of logits", "--rows-per-step");
}

std::int64_t Scheduler::rows_bytes(std::int64_t rows) const noexcept {
  const PackageInfo& package = model_.package();
  return rows * 2 * package.num_layers * package.num_kv_heads * package.head_dim *
         static_cast<std::int64_t>(size_of(package.cache_type));
}

// A bidirectional request holds what its refresh left, a block-causal one that twice while it
// commits.
std::int64_t Scheduler::own_bytes(const UnmaskLoop& loop) const noexcept {
  const bool block_causal = model_.package().attention == AttentionKind::block_causal;
  return rows_bytes(loop.most_cached_rows()) * loop.batch() * (block_causal ? 2 : 1);
}

// What a cache will have beyond that: it keeps the memory that a larger request had.
std::int64_t Scheduler::excess_bytes(const BlockCache& cache, const UnmaskLoop& loop) const {
  const bool block_causal = model_.package().attention == AttentionKind::block_causal;
  return cache.bytes_with(loop.most_cached_rows(), block_causal) - own_bytes(loop);
}

// Requests that share runs have a copy side by side.
std::int64_t Scheduler::stacked_bytes(const UnmaskLoop& loop) const noexcept {
  const bool shares = std::min(limits_.max_batch, largest_run_.batch) > 1 && loop.batch() == 1;
  return shares ? rows_bytes(loop.most_cached_rows()) : 0;
}

std::shared_ptr<Job> Scheduler::submit(std::unique_ptr<UnmaskLoop> loop,
                                       std::function<void()> on_done) {
  if (serving_->is_elsewhere()) serving_->require_waiting_makes_sense();
  require_runs(loop->largest_run());
  auto job = std::make_shared<Job>(serving_);
  job->stacked = stacked_bytes(*loop);
  job->bytes = own_bytes(*loop) + job->stacked;
  job->size = loop->most_rows();
  if (job->bytes > limits_.cache_bytes) {
    throw Error(ErrorCode::bad_config,
                concat("the request may need ", job->bytes, " bytes of cache for ",
                       loop->most_cached_rows(), " rows; expected at most cache_bytes, ",
                       limits_.cache_bytes, " (cache 'none' needs none)"));
  }
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
          .cache_bytes_used = used_bytes_.load(),
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

void Scheduler::serve() {
  serving_->id.store(std::this_thread::get_id());
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] {
      return stopping_ || !calls_.empty() || !waiting_.empty() || !running_.empty();
    });
    if (stopping_) break;
    auto calls = std::exchange(calls_, {});
    admit();
    lock.unlock();
    for (auto& call : calls) call();
    step();
    lock.lock();
  }
  auto calls = std::exchange(calls_, {});
  running_.insert(running_.end(), waiting_.begin(), waiting_.end());
  waiting_.clear();
  lock.unlock();
  calls.clear();  // broken promises: who waits is told
  while (!running_.empty()) {
    running_.back()->loop->abort();
    finish(*running_.back());
  }
}

// Takes up waiting requests, first come first. Cancelled ones need no room.
void Scheduler::admit() {
  const auto cancelled = [](const std::shared_ptr<Job>& job) { return job->cancelled.load(); };
  const auto first =
      std::stable_partition(waiting_.begin(), waiting_.end(), std::not_fn(cancelled));
  running_.insert(running_.end(), first, waiting_.end());
  waiting_.erase(first, waiting_.end());
  while (!waiting_.empty() && std::ssize(running_) < limits_.max_batch &&
         waiting_.front()->bytes <= limits_.cache_bytes - used_bytes_) {
    waiting_.front()->charged = waiting_.front()->bytes;
    used_bytes_ += waiting_.front()->charged;
    stacked_bytes_ += waiting_.front()->stacked;
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  model_.limit_stacks(stacked_bytes_);
}

// One graph run, and what it needs before and after.
void Scheduler::step() {
  for (std::size_t i = 0; i < running_.size();) {
    if (plan(*running_[i])) ++i;
  }
  Job* first = choose();
  if (first == nullptr) return;
  form_group(*first);
  run_group();
}

// Finds the pass that the request wants. False: it has ended and is not among the running ones.
bool Scheduler::plan(Job& job) {
  std::exception_ptr problem;
  try {
    if (job.cancelled.load()) {
      job.loop->abort();
      job.feed = nullptr;
    } else if (!job.cache) {
      job.cache = acquire(*job.loop);
      std::int64_t more = excess_bytes(*job.cache, *job.loop);
      if (more > limits_.cache_bytes - used_bytes_) {  // of a larger request: there is no room now
        job.cache = new_cache(*job.loop);
        more = excess_bytes(*job.cache, *job.loop);
      }
      job.charged += more;
      used_bytes_ += more;
      evict();
      job.loop->start(*job.cache);
    }
    if (job.feed == nullptr) job.feed = job.loop->next();
  } catch (...) {
    problem = std::current_exception();
  }
  if (job.feed != nullptr && !problem) return true;
  finish(job, problem);
  return false;
}

// The cache of a former request that this one can go on from, else one to write over, else a new
// one. Caches of conversations are kept as long as there is room for others.
std::unique_ptr<BlockCache> Scheduler::acquire(const UnmaskLoop& loop) {
  const auto usable = [&](const std::unique_ptr<BlockCache>& cache) {
    return cache->batch() == loop.batch();
  };
  auto best = idle_.end();
  std::int64_t most = 0;
  for (auto cache = idle_.begin(); cache != idle_.end(); ++cache) {
    const std::int64_t rows = usable(*cache) ? loop.rows_to_reuse(**cache) : 0;
    if (rows <= most) continue;
    most = rows;
    best = cache;
  }
  if (best == idle_.end()) {
    best = std::find_if(idle_.begin(), idle_.end(), [&](const auto& cache) {
      return usable(cache) && cache->committed_length() == 0;
    });
  }
  const bool full = std::ssize(idle_) + std::ssize(running_) > limits_.max_batch;
  if (best == idle_.end() && full) best = std::find_if(idle_.begin(), idle_.end(), usable);
  if (best == idle_.end()) return new_cache(loop);
  std::unique_ptr<BlockCache> cache = std::move(*best);
  idle_.erase(best);
  return cache;
}

std::unique_ptr<BlockCache> Scheduler::new_cache(const UnmaskLoop& loop) {
  return std::make_unique<BlockCache>(model_.session(), model_.package(), loop.batch(), clock_);
}

void Scheduler::evict() noexcept {
  model_.limit_stacks(stacked_bytes_);  // some requests may have left since they were admitted
  const auto bytes = [&] {
    std::int64_t total = used_bytes_;
    for (const std::unique_ptr<BlockCache>& cache : idle_) total += cache->bytes();
    return total;
  };
  while (!idle_.empty() &&
         (std::ssize(idle_) > limits_.max_batch || bytes() > limits_.cache_bytes)) {
    idle_.erase(idle_.begin());
  }
}

Job* Scheduler::choose() {
  Job* least = nullptr;
  Job* longest = nullptr;
  for (const std::shared_ptr<Job>& job : running_) {
    if (least == nullptr || job->served < least->served) least = job.get();
    if (job->postponed >= patience * rows_of(*job) &&
        (longest == nullptr || job->postponed > longest->postponed)) {
      longest = job.get();
    }
  }
  return longest != nullptr ? longest : least;
}

void Scheduler::form_group(Job& first) {
  group_.assign(1, &first);
  const double most = peers * first.size;
  for (const std::shared_ptr<Job>& job : running_) {
    if (std::ssize(group_) == largest_run_.batch) return;
    if (job.get() != &first && job->size <= most && Model::can_share(*first.feed, *job->feed)) {
      group_.push_back(job.get());
    }
  }
}

void Scheduler::run_group() {
  feeds_.clear();
  std::int64_t rows = 0;
  for (Job* job : group_) {
    feeds_.push_back(job->feed);
    rows += rows_of(*job);
  }
  for (const std::shared_ptr<Job>& job : running_) job->postponed += rows;
  std::exception_ptr failure;
  try {
    model_.run(feeds_);
  } catch (...) {
    failure = std::current_exception();
  }
  for (Job* job : group_) {
    job->served += static_cast<double>(rows_of(*job)) * job->size * job->size;
    job->postponed = 0;
    job->feed = nullptr;
    std::exception_ptr problem = failure;
    try {
      if (!problem) job->loop->take();
    } catch (...) {
      problem = std::current_exception();
    }
    if (problem) finish(*job, problem);
  }
}

void Scheduler::finish(Job& job, std::exception_ptr problem) {
  const auto found = std::find_if(running_.begin(), running_.end(),
                                  [&](const auto& other) { return other.get() == &job; });
  const std::shared_ptr<Job> own = std::move(*found);
  running_.erase(found);
  leave(*own, std::move(problem));
}

void Scheduler::leave(Job& job, std::exception_ptr problem) {
  GenerationResult result;
  try {
    used_bytes_ -= job.charged;
    stacked_bytes_ -= job.charged > 0 ? job.stacked : 0;
    if (job.cache) {
      if (job.cache->batch() > 1) job.cache->drop_committed(0);  // of a masked prompt
      idle_.push_back(std::move(job.cache));
    }
    if (!problem) result = job.loop->result();
  } catch (...) {
    problem = std::current_exception();
  }
  {
    const std::lock_guard lock(mutex_);
    --under_way_;  // before who waits for this one may ask for the next
  }
  if (problem) {
    job.promise.set_exception(std::move(problem));
  } else {
    job.promise.set_value(std::move(result));
  }
  job.loop.reset();
  try {
    if (job.on_done) job.on_done();
  } catch (...) {  // there is nobody to tell
  }
  job.on_done = {};
  job.callbacks_over.set_value();
}

}  // namespace fastdllm
