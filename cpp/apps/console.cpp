#include "console.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fastdllm/error.hpp>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace fastdllm::cli {
namespace {

constexpr int interrupted_code = 130;

// All that a signal handler may touch.
volatile std::sig_atomic_t guarded = 0;
volatile std::sig_atomic_t noted = 0;

void on_interrupt(int) {
  if (guarded == 0 || noted != 0) _exit(interrupted_code);
  noted = 1;
}

void write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(file, text.data(), text.size());
    if (count >= 0) {
      text.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno == EPIPE) {
      throw BrokenPipe();
    } else if (errno != EINTR) {
      throw std::runtime_error(std::string("standard output: ") + std::strerror(errno));
    }
  }
}

/// What stopped the reading: the end, or an error.
void require_end_of_input(std::string_view what) {
  if (std::ferror(stdin) == 0) return;
  const int reason = errno;
  throw Error(ErrorCode::bad_config,
              std::string(what) + " is to be read from standard input, which " +
                  (reason == EBADF ? "is closed"
                                   : std::string("cannot be read: ") + std::strerror(reason)));
}

}  // namespace

void occupy_standard_files() noexcept {
  for (int file = STDIN_FILENO; file <= STDERR_FILENO; ++file) {
    if (fcntl(file, F_GETFD) != -1 || errno != EBADF) continue;
    // For the wrong direction: its use is an error still.
    if (open("/dev/null", file == STDIN_FILENO ? O_WRONLY : O_RDONLY) == -1) return;
  }
}

void print(std::string_view text) {
  write_all(STDOUT_FILENO, text);
}

void print_error(std::string_view text) noexcept {
  std::fwrite(text.data(), 1, text.size(), stderr);
}

bool prints_to_terminal() noexcept {
  return isatty(STDOUT_FILENO) == 1;
}
bool reads_from_terminal() noexcept {
  return isatty(STDIN_FILENO) == 1;
}
bool errors_go_to_terminal() noexcept {
  return isatty(STDERR_FILENO) == 1;
}

std::string read_input(std::string_view what) {
  std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  require_end_of_input(what);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::optional<std::string> read_line(std::string_view what) {
  std::string line;
  if (!std::getline(std::cin, line)) {
    require_end_of_input(what);
    return {};
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return line;
}

const std::string& require_utf8(std::string_view what, const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();  // which writes nothing else
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorCode::bad_config, std::string(what) + " is not valid UTF-8");
  }
  return text;
}

void install_signals() noexcept {
  std::signal(SIGPIPE, SIG_IGN);
  struct sigaction action{};
  sigaction(SIGINT, nullptr, &action);
  if (action.sa_handler == SIG_IGN) return;  // a shell's job in the background
  action = {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
}

InterruptGuard::InterruptGuard() noexcept {
  noted = 0;
  guarded = 1;
}

InterruptGuard::~InterruptGuard() {
  guarded = 0;
}

bool InterruptGuard::interrupted() noexcept {
  return noted != 0;
}

}  // namespace fastdllm::cli
