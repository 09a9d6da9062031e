// A file's content without a copy of it: the pages of an engine can be given back once it is read.
#pragma once

#include <cstddef>
#include <filesystem>

namespace fastdllm {

class MappedFile {
 public:
  /// Errors: Error{bad_package} when the file cannot be read.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] const void* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace fastdllm
