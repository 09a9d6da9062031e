#include "loop/request_memory.hpp"

#include <algorithm>

#include "cache/canvas.hpp"
#include "cache/pass.hpp"
#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

// A position's id, whether it was given, its row of a pass, that row's place, and its confidence.
constexpr std::int64_t bytes_per_position =
    sizeof(std::int32_t) + sizeof(std::uint8_t) + 2 * sizeof(std::int64_t) + sizeof(double);

std::int64_t round_up(std::int64_t value, std::int64_t step) noexcept {
  return (value + step - 1) / step * step;
}

// What UnmaskLoop::max_cached_rows() says of a canvas of this length whose first masked position
// is `start`; tests hold the two together.
std::int64_t cached_rows(const GenerationConfig& config, const BlockLayout& layout,
                         std::int64_t start, std::int64_t length) {
  if (config.cache == CacheMode::none) return 0;
  if (layout.absolute) return length;
  const std::int64_t block_length = std::min(layout.block_length, length - start);
  const bool automatic = config.cache == CacheMode::automatic;
  if (automatic && (length - block_length) * 8 <= block_length) return 0;
  if (config.deferred_window) return length;
  const std::int64_t last_block = start + (length - start - 1) / block_length * block_length;
  return std::min(last_block + bucket_of(block_length), length);
}

// A refresh feeds all that it attends to. Finished blocks are committed in pieces.
std::int64_t attended_pairs(const GenerationConfig& config, const BlockLayout& layout,
                            std::int64_t length) noexcept {
  const std::int64_t all = length * length;
  if (!layout.absolute || config.cache == CacheMode::none) return all;
  return std::min(all, std::max(max_attention_pairs, layout.block_length * length));
}

RequestMemory memory_of(const PackageInfo& package, const GenerationConfig& config,
                        std::int64_t start, std::int64_t length) noexcept {
  const BlockLayout layout = layout_of(package, config);
  if (layout.absolute) length = round_up(length, layout.block_length);
  RequestMemory memory;
  memory.canvas_bytes = length * bytes_per_position;
  memory.cache.rows = cached_rows(config, layout, start, length);
  memory.cache.batch = config.cfg_scale > 0.0 ? 2 : 1;
  memory.cache.pairs = attended_pairs(config, layout, length);
  return memory;
}

}  // namespace

RequestMemory memory_of_prompt(const PackageInfo& package, const GenerationConfig& config,
                               std::int64_t length) noexcept {
  RequestMemory memory = memory_of(package, config, length, length + config.max_new_tokens);
  memory.given = length;
  memory.new_tokens = config.max_new_tokens;
  return memory;
}

RequestMemory memory_of_canvas(const PackageInfo& package, const GenerationConfig& config,
                               std::span<const std::int32_t> ids) noexcept {
  const auto gap = std::find(ids.begin(), ids.end(), package.mask_token_id);
  RequestMemory memory = memory_of(package, config, gap - ids.begin(), std::ssize(ids));
  memory.given = std::ssize(ids);
  return memory;
}

std::string describe(const RequestMemory& memory) {
  if (memory.new_tokens == 0) return concat("the canvas has ", memory.given, " tokens: it");
  return concat("max_new_tokens is ", memory.new_tokens, " behind a prompt of ", memory.given,
                " tokens: the request");
}

void require_canvas_memory(const RequestMemory& memory, std::int64_t host_bytes) {
  if (memory.canvas_bytes <= host_bytes) return;
  throw Error(ErrorCode::bad_config,
              concat(describe(memory), " needs ", memory.canvas_bytes,
                     " bytes of memory for its canvas; expected at most half of the machine's, ",
                     host_bytes));
}

void refuse_memory(const RequestMemory& memory) {
  throw Error(ErrorCode::bad_config, concat(describe(memory), " needs ", memory.canvas_bytes,
                                            " bytes of memory for its canvas; there are not"));
}

}  // namespace fastdllm
