// Reads a package's files, with different errors for missing and unreadable ones.
#pragma once

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>

#include "concat.hpp"
#include "fastdllm/error.hpp"

namespace fastdllm {

/// Throws Error{bad_package}. lacking: what is said of a file that does not exist.
[[noreturn]] inline void reject_file(const std::filesystem::path& path,
                                     const std::error_code& problem, std::string_view lacking) {
  const bool lacks = problem == std::errc::no_such_file_or_directory;
  throw Error(ErrorCode::bad_package,
              lacks ? concat(path.string(), ": ", lacking)
                    : concat(path.string(), ": cannot be read: ", problem.message()));
}

/// The system's message for the last call that failed.
[[nodiscard]] inline std::error_code last_problem() {
  return {errno == 0 ? EIO : errno, std::generic_category()};
}

/// A file that may be read. Errors: Error{bad_package}, with `lacking` where there is none.
[[nodiscard]] inline std::ifstream open_file(const std::filesystem::path& path,
                                             std::string_view lacking) {
  std::error_code problem;
  const auto status = std::filesystem::status(path, problem);
  if (problem || !std::filesystem::exists(status)) {
    reject_file(path, problem ? problem : make_error_code(std::errc::no_such_file_or_directory),
                lacking);
  }
  if (std::filesystem::is_directory(status)) {
    reject_file(path, make_error_code(std::errc::is_a_directory), lacking);
  }
  if (!std::filesystem::is_regular_file(status)) {  // opening a pipe would wait for its writer
    throw Error(ErrorCode::bad_package,
                concat(path.string(), ": cannot be read: expected a regular file"));
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) reject_file(path, last_problem(), lacking);
  errno = 0;
  if (file.peek(); file.bad()) reject_file(path, last_problem(), lacking);
  file.clear();
  return file;
}

/// All of a file. Errors: Error{bad_package}, also for one of more than `most` bytes.
[[nodiscard]] inline std::string read_file(const std::filesystem::path& path, std::uintmax_t most,
                                           std::string_view lacking) {
  std::ifstream file = open_file(path, lacking);
  std::error_code problem;
  const std::uintmax_t size = std::filesystem::file_size(path, problem);
  if (problem) reject_file(path, problem, lacking);
  if (size > most) {
    throw Error(ErrorCode::bad_package,
                concat(path.string(), ": is ", size, " bytes; expected at most ", most));
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  errno = 0;
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (file.bad()) reject_file(path, last_problem(), lacking);
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

}  // namespace fastdllm
