// A file's content without a copy of it: its pages can be given back once they are read.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace fastdllm {

class MappedFile {
 public:
  /// Errors: Error{bad_package} when the file cannot be read, or is empty.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] const void* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(data_), size_};
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace fastdllm
