#include "library.hpp"

#include <dlfcn.h>
#include <link.h>

#include <cstdlib>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

std::vector<std::string> candidates(const LibrarySearch& search, const std::string& named) {
  if (!named.empty()) return {named};
  const char* from_environment = std::getenv(search.variable.c_str());
  if (from_environment != nullptr && *from_environment != '\0') return {from_environment};
  return search.names;
}

}  // namespace

void* open_library(const LibrarySearch& search, const std::string& named) {
  std::string tried;
  for (const std::string& library : candidates(search, named)) {
    if (void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
    const char* problem = dlerror();
    tried += concat("\n  ", library, ": ", problem == nullptr ? "cannot be opened" : problem);
  }
  throw Error(ErrorCode::backend,
              concat("the ", search.title, " library was not found; ", search.remedy,
                     ", or name the library by the option ", search.option,
                     " or the environment variable ", search.variable, ". Tried:", tried));
}

std::string path_of(void* library) {
  const link_map* map = nullptr;
  if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr) return {};
  return map->l_name;
}

// The loader knows its libraries by device and inode, so one handle stands for one file.
bool is_library(void* library, const std::string& name) noexcept {
  void* found = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
  if (found == nullptr) return false;
  dlclose(found);
  return found == library;
}

void* find_symbol(void* library, const char* name) noexcept {
  return dlsym(library, name);
}

}  // namespace fastdllm
