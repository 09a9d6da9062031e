// The memory that a request needs, computed from its numbers before anything is allocated.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "fastdllm/generation.hpp"
#include "fastdllm/package.hpp"
#include "loop/cache_pool.hpp"

namespace fastdllm {

struct RequestMemory {
  std::int64_t given = 0;         ///< tokens of the prompt; infilling: of the canvas
  std::int64_t new_tokens = 0;    ///< max_new_tokens; infilling: 0
  std::int64_t canvas_bytes = 0;  ///< of the canvas and the plan of its passes, on the host
  CacheNeeds cache;               ///< the same as UnmaskLoop's max_cached_rows() and batch()
};

[[nodiscard]] RequestMemory memory_of_prompt(const PackageInfo& package,
                                             const GenerationConfig& config,
                                             std::int64_t length) noexcept;
/// Infilling. ids: hold a mask token.
[[nodiscard]] RequestMemory memory_of_canvas(const PackageInfo& package,
                                             const GenerationConfig& config,
                                             std::span<const std::int32_t> ids) noexcept;

/// The request, for messages: begins with the option that makes it large.
[[nodiscard]] std::string describe(const RequestMemory& memory);

/// Errors: Error{bad_config} for a canvas of more than so many bytes.
void require_canvas_memory(const RequestMemory& memory, std::int64_t host_bytes);

/// Error{bad_config} for a canvas that could not be allocated.
[[noreturn]] void refuse_memory(const RequestMemory& memory);

}  // namespace fastdllm
