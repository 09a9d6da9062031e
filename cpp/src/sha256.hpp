// SHA-256 (FIPS 180-4) of a file, for the package's checksums.
#pragma once

#include <filesystem>
#include <string>

namespace fastdllm {

/// Lower-case hexadecimal digest. Errors: Error{bad_package} when the file cannot be read.
[[nodiscard]] std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace fastdllm
