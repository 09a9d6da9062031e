// Requests of all kinds as values: asked of an engine alone, or beside others.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fastdllm/engine.hpp"

namespace fastdllm::testing {

struct Asked {
  std::vector<std::int32_t> ids;  // an infill's hold mask tokens
  GenerationConfig config;
  bool infill = false;

  [[nodiscard]] Request submit(Engine& engine, CommitCallback on_commit = {},
                               DoneCallback on_done = {}) const;
};

/// Caches, policies, lengths, seeds, temperatures, stop tokens and infills as the package allows.
/// entropies: also rules that go by these, whose last bit may depend on the batch in a real graph.
[[nodiscard]] std::vector<Asked> mixed_requests(const PackageInfo& package, std::int64_t count,
                                                bool entropies);

/// One after the other.
[[nodiscard]] std::vector<GenerationResult> answer_all(Engine& engine,
                                                       std::span<const Asked> asked);

/// Threads that ask `per_thread` of them each, one thread after the other's, have several under way
/// and now and then ask one twice and cancel it. Returns what was answered otherwise than `alone`
/// says, [asked.size()]; an aborted answer is the beginning of it.
[[nodiscard]] std::vector<std::string> differences_side_by_side(
    Engine& engine, std::span<const Asked> asked, std::span<const GenerationResult> alone,
    std::int64_t threads, std::int64_t per_thread);

}  // namespace fastdllm::testing
