// Mutations that keep JSON JSON: most random bytes end in the parser.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fastdllm::fuzzing {

/// The document with one or a few values replaced, removed, added, copied or renamed, at most
/// `most` bytes long; text that is no JSON, and now and then any, as libFuzzer's own mutations
/// leave it.
[[nodiscard]] std::string mutate_json(std::string_view text, std::size_t most, std::uint32_t seed);

}  // namespace fastdllm::fuzzing
