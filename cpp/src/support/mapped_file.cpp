#include "support/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto refuse = [&] {
    throw Error(ErrorCode::bad_package,
                concat(path.string(), ": cannot be read: ", std::strerror(errno)));
  };
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) refuse();
  struct stat facts{};
  const bool known = fstat(file, &facts) == 0;
  if (known && facts.st_size == 0) {
    close(file);
    throw Error(ErrorCode::bad_package, concat(path.string(), ": is empty"));
  }
  if (known) {
    size_ = static_cast<std::size_t>(facts.st_size);
    data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
  }
  const int problem = errno;
  close(file);
  errno = problem;
  if (data_ == nullptr || data_ == MAP_FAILED) refuse();
}

MappedFile::~MappedFile() {
  munmap(data_, size_);
}

}  // namespace fastdllm
