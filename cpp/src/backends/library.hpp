// Finds inference libraries at run time, so that the user chooses their versions.
#pragma once

#include <string>
#include <vector>

namespace fastdllm {

/// A library and the ways to find it, for opening it and for messages.
struct LibrarySearch {
  std::string title;               ///< "ONNX Runtime"
  std::string remedy;              ///< "install onnxruntime"
  std::string option;              ///< the field of SessionOptions
  std::string variable;            ///< the environment variable
  std::vector<std::string> names;  ///< what the loader's search is asked for, in this order
};

/// Opens `named` (the option's value), else what the environment variable names, else the first
/// name that the loader finds. It stays open for good: such libraries do not survive being closed.
/// Errors: Error{backend} listing what was tried.
[[nodiscard]] void* open_library(const LibrarySearch& search, const std::string& named);

/// The file that an opened library was read from, as the loader found it.
[[nodiscard]] std::string path_of(void* library);

/// Whether `name`, asked for now, is this opened library: the same file, under whatever path.
[[nodiscard]] bool is_library(void* library, const std::string& name) noexcept;

/// The address of a function, nullptr if the library has none of this name.
[[nodiscard]] void* find_symbol(void* library, const char* name) noexcept;

}  // namespace fastdllm
