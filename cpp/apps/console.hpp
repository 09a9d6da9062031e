// What a program of the command line needs of its surroundings: standard output, standard input,
// and Ctrl-C.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace fastdllm::cli {

/// The reader of our output has closed it.
class BrokenPipe : public std::runtime_error {
 public:
  BrokenPipe() : std::runtime_error("standard output was closed") {}
};

/// Ctrl-C: exit code 130.
class Interrupted : public std::runtime_error {
 public:
  Interrupted() : std::runtime_error("interrupted") {}
};

/// Writes all of it, at once visible. Errors: BrokenPipe, std::runtime_error.
void print(std::string_view text);
/// On standard error, as far as that can be written.
void print_error(std::string_view text) noexcept;

[[nodiscard]] bool prints_to_terminal() noexcept;
[[nodiscard]] bool reads_from_terminal() noexcept;
[[nodiscard]] bool errors_go_to_terminal() noexcept;

/// All of standard input, without the newlines at its end. Errors: Error{bad_config} where it is
/// closed or cannot be read; `what` names the text that was to come from it.
[[nodiscard]] std::string read_input(std::string_view what);
/// One line of standard input without its end; none = there is no more. Errors: as read_input().
[[nodiscard]] std::optional<std::string> read_line(std::string_view what);
/// The same text. Errors: Error{bad_config} where it is no UTF-8; `what` names it.
[[nodiscard]] const std::string& require_utf8(std::string_view what, const std::string& text);

/// Where a standard file is closed, a file opened later would be taken for it: call this first.
void occupy_standard_files() noexcept;

/// Ctrl-C ends the process with code 130, and a write to a closed pipe is an error of the write.
void install_signals() noexcept;

/// While one exists, the first Ctrl-C is noted instead, and the next one ends the process.
class InterruptGuard {
 public:
  InterruptGuard() noexcept;
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  [[nodiscard]] static bool interrupted() noexcept;
};

}  // namespace fastdllm::cli
