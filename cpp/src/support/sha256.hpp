// SHA-256 (FIPS 180-4) of a file, for the package's checksums.
#pragma once

#include <filesystem>
#include <string>

#include "fastdllm/export.h"

namespace fastdllm {

/// Lower-case hexadecimal digest. Errors: Error{bad_package} when the file cannot be read.
[[nodiscard]] std::string sha256_of_file(const std::filesystem::path& path);

/// Errors: Error{bad_package} unless the file has this digest. Exported for fastdllm::text.
FASTDLLM_API void require_sha256(const std::filesystem::path& path, const std::string& expected);

}  // namespace fastdllm
