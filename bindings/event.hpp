// A commit event that owns its arrays, so that Python may keep it after the callback.
#pragma once

#include <cstdint>
#include <vector>

#include "fastdllm/generation.hpp"

namespace fastdllm::python {

struct OwnedEvent {
  explicit OwnedEvent(const CommitEvent& event)
      : step(event.step),
        block(event.block),
        block_start(event.block_start),
        block_end(event.block_end),
        block_finished(event.block_finished),
        refreshed(event.refreshed),
        rows(event.rows),
        positions(event.positions.begin(), event.positions.end()),
        token_ids(event.token_ids.begin(), event.token_ids.end()),
        confidences(event.confidences.begin(), event.confidences.end()) {}

  std::int64_t step, block, block_start, block_end;
  bool block_finished, refreshed;
  std::int64_t rows;
  std::vector<std::int32_t> positions, token_ids;
  std::vector<double> confidences;
};

}  // namespace fastdllm::python
