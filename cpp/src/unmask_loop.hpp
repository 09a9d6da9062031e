// The loop that everything hangs off: plan a pass, run it, choose positions, commit them.
#pragma once

#include <cstdint>
#include <span>

#include "fastdllm/generation.hpp"
#include "model.hpp"

namespace fastdllm {

/// Decodes block by block until the canvas is filled, an end-of-text token ends it, or the callback
/// says so (Fast-dLLM, arXiv 2505.22618, algorithm 1). prompt and config are valid for the model.
/// Errors: Error{numeric}, Error{backend}; the model stays usable.
[[nodiscard]] GenerationResult run_unmask_loop(Model& model, std::span<const std::int32_t> prompt,
                                               const GenerationConfig& config,
                                               const CommitCallback& on_commit);

}  // namespace fastdllm
