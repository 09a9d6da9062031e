// The JSON files of a package. Exported for fastdllm::text, a library of its own.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "fastdllm/export.h"

namespace fastdllm {

/// A package's fastdllm.json. Errors: Error{bad_package}.
[[nodiscard]] FASTDLLM_API nlohmann::json read_metadata(const std::filesystem::path& folder);

/// A JSON file of at most 64 MiB. Errors: Error{bad_package}.
[[nodiscard]] FASTDLLM_API nlohmann::json read_json(const std::filesystem::path& path);

}  // namespace fastdllm
