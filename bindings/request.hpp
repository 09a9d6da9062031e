// A request in Python: its callbacks, and how a thread waits for it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "threads.hpp"

namespace fastdllm::python {

/// A request's Python callbacks, which run on the engine's thread. Either may be None.
class Callbacks {
 public:
  Callbacks(nb::handle on_commit, nb::handle on_done, std::shared_ptr<Shared> raised);
  ~Callbacks();
  Callbacks(const Callbacks&) = delete;
  Callbacks& operator=(const Callbacks&) = delete;

  [[nodiscard]] bool commit(const CommitEvent& event);
  void done();

 private:
  Calls& calls_ = Calls::get();
  Shared on_commit_, on_done_;
  std::shared_ptr<Shared> raised_;
};

struct PyRequest {
  using Clock = std::chrono::steady_clock;

  Request request;
  std::shared_ptr<Shared> raised = std::make_shared<Shared>();  // by on_commit

  /// Waits and checks for Ctrl-C, which ends a `blocking` call's request. False: `until` came
  /// first.
  [[nodiscard]] bool wait(std::optional<Clock::time_point> until, bool blocking) const;
  /// Of a request that has ended. Errors: also what on_commit raised.
  [[nodiscard]] GenerationResult result() const;
};

}  // namespace fastdllm::python
