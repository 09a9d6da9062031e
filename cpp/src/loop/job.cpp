#include "loop/job.hpp"

#include <unistd.h>

#include "fastdllm/error.hpp"

namespace fastdllm {

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

}  // namespace fastdllm
