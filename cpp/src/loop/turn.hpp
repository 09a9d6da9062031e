// Chooses the running requests of the next graph run. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace fastdllm {

/// What the choice depends on.
struct Turn {
  double size = 0.0;           ///< rows that it may take at most
  std::int64_t rows = 0;       ///< of the pass that it wants
  double served = 0.0;         ///< rows computed for it, times the square of its size
  std::int64_t postponed = 0;  ///< rows computed for others since its last pass; those of requests
                               ///< of less than half its size count twice
};

/// Whether the passes of two requests, given by their indices, can share a graph run.
using CanShare = std::function<bool(std::size_t, std::size_t)>;

/// The requests of the next graph run, by index, at most max_batch. The first is the one that is
/// next: it has had the least of its share, or has waited too long. Others of about its size whose
/// passes can share its run follow, in their order. Empty where there are no requests.
[[nodiscard]] std::vector<std::size_t> choose_turns(std::span<const Turn> turns,
                                                    std::int64_t max_batch,
                                                    const CanShare& can_share);

/// Records that the requests of choose_turns() had their passes, and the others waited.
void note_run(std::span<Turn> turns, std::span<const std::size_t> chosen);

}  // namespace fastdllm
