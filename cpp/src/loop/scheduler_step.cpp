// What the engine's thread does for one graph run.
#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "fastdllm/error.hpp"
#include "loop/scheduler.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

// The error of the exception that is being handled, for callers that wait for the request.
std::exception_ptr problem_of(std::string_view what) {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return std::make_exception_ptr(Error(
        ErrorCode::backend, concat("there is no memory for ", what,
                                   ": expected a smaller max_batch, cache_bytes or request")));
  } catch (...) {
    return std::current_exception();
  }
}

}  // namespace

// One graph run, and what it needs before and after.
void Scheduler::step() {
  do {
    finish();
    if (serving_->is_elsewhere()) return;  // on_done has forked
    admit();
  } while (!plan());  // who ends without a pass leaves a place
  choose();
  if (!group_.empty()) take(run());
}

void Scheduler::finish() {
  for (std::size_t i = 0; i < running_.size();) {
    if (!running_[i]->has_ended()) {
      ++i;
      continue;
    }
    const std::shared_ptr<Job> job = std::move(running_[i]);
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i));
    leave(*job);
    if (serving_->is_elsewhere()) return;
  }
}

// Admits waiting requests in order of arrival. Cancelled ones need no memory.
void Scheduler::admit() {
  const std::lock_guard lock(mutex_);
  const auto cancelled = [](const std::shared_ptr<Job>& job) { return job->cancelled.load(); };
  const auto first =
      std::stable_partition(waiting_.begin(), waiting_.end(), std::not_fn(cancelled));
  running_.insert(running_.end(), first, waiting_.end());
  waiting_.erase(first, waiting_.end());
  while (!waiting_.empty() && std::ssize(running_) < limits_.max_batch &&
         pool_.admit(waiting_.front()->lease)) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  model_.limit_stacks(pool_.stacked_bytes());
}

// Finds the pass that each request wants. False: some have ended instead.
bool Scheduler::plan() {
  bool all = true;
  for (const std::shared_ptr<Job>& job : running_) {
    try {
      if (job->cancelled.load()) {
        job->loop->abort();
        job->feed = nullptr;
      } else if (!job->lease.cache) {
        pool_.open(job->lease, [&](const auto& cache) { return job->loop->rows_to_reuse(cache); });
        job->loop->start(*job->lease.cache);
      }
      if (job->feed == nullptr) job->feed = job->loop->next();
    } catch (...) {
      job->problem = problem_of("a request");
    }
    all = all && !job->has_ended();
  }
  return all;
}

void Scheduler::choose() {
  turns_.clear();
  for (const std::shared_ptr<Job>& job : running_) {
    job->turn.rows = job->loop->batch() * std::ssize(job->feed->pass->rows);
    turns_.push_back(job->turn);
  }
  group_ = choose_turns(turns_, largest_run_.batch, [&](std::size_t a, std::size_t b) {
    return Model::can_share(*running_[a]->feed, *running_[b]->feed);
  });
}

// Returns the error, or nothing.
std::exception_ptr Scheduler::run() {
  feeds_.clear();
  for (const std::size_t i : group_) feeds_.push_back(running_[i]->feed);
  try {
    model_.run(feeds_);
  } catch (...) {
    return problem_of(concat("a pass of ", group_.size(), " requests of ",
                             feeds_[0]->pass->rows.size(), " rows each"));
  }
  return {};
}

void Scheduler::take(const std::exception_ptr& failure) {
  note_run(turns_, group_);
  for (std::size_t i = 0; i < running_.size(); ++i) running_[i]->turn = turns_[i];
  for (const std::size_t i : group_) {
    Job& job = *running_[i];
    job.feed = nullptr;
    job.problem = failure;
    try {
      if (!failure) job.loop->take();
    } catch (...) {  // also what a callback threw
      job.problem = std::current_exception();
    }
    if (serving_->is_elsewhere()) return;  // the callback has forked
  }
}

void Scheduler::leave(Job& job) {
  GenerationResult result;
  try {
    pool_.give_back(job.lease);
    if (!job.problem) result = job.loop->result();
  } catch (...) {
    job.problem = problem_of("a result");
  }
  {
    const std::lock_guard lock(mutex_);
    --under_way_;  // before who waits for this one may ask for the next
  }
  if (job.problem) {
    job.promise.set_exception(std::exchange(job.problem, {}));
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
