#include "loader.hpp"

#include <onnxruntime_cxx_api.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "../library.hpp"
#include "fastdllm/backend.hpp"
#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

// The oldest release that loads what the exporter writes (opset 23 and its attention).
constexpr int oldest_minor = 24;

void* open_onnxruntime(const std::string& library) {
  return open_library({.title = "ONNX Runtime",
                       .remedy = "install onnxruntime",
                       .option = "onnxruntime_library",
                       .variable = "FASTDLLM_ONNXRUNTIME",
                       .names = {"libonnxruntime.so.1", "libonnxruntime.so"}},
                      library);
}

const OrtApiBase& api_base(void* handle) {
  using GetApiBase = const OrtApiBase* (*)();
  const auto get_api_base = reinterpret_cast<GetApiBase>(find_symbol(handle, "OrtGetApiBase"));
  if (get_api_base == nullptr) {
    throw Error(ErrorCode::backend, "the library has no OrtGetApiBase: it is no ONNX Runtime");
  }
  return *get_api_base();
}

void require_version(const std::string& version, const std::string& path) {
  int major = 0;
  int minor = 0;
  if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) == 2 &&
      std::pair(major, minor) >= std::pair(1, oldest_minor)) {
    return;
  }
  throw Error(ErrorCode::backend, concat(path, ": ONNX Runtime is too old: needs 1.", oldest_minor,
                                         ", found ", version));
}

// The one that this process holds; it is never closed.
struct Loaded {
  std::mutex mutex;
  void* handle = nullptr;
  std::string version;
};

Loaded& loaded() {
  static Loaded instance;
  return instance;
}

}  // namespace

std::string load_onnxruntime(const std::string& library) {
  Loaded& process = loaded();
  const std::lock_guard lock(process.mutex);
  if (process.handle != nullptr) {
    if (library.empty() || is_library(process.handle, library)) return process.version;
    throw Error(ErrorCode::backend,
                concat("onnxruntime_library is '", library,
                       "'; this process has opened ONNX Runtime ", process.version, " from ",
                       path_of(process.handle), " before, and holds one: name that file or none"));
  }

  // ONNX Runtime's own telemetry is on by default; users of fastdllm did not ask for it.
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
  void* handle = open_onnxruntime(library);
  const OrtApiBase& base = api_base(handle);
  std::string version = base.GetVersionString();
  require_version(version, path_of(handle));
  const OrtApi* api = base.GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    throw Error(ErrorCode::backend, concat(path_of(handle), ": ONNX Runtime ", version,
                                           " has no API of version ", ORT_API_VERSION));
  }
  Ort::InitApi(api);
  process.version = std::move(version);
  process.handle = handle;
  return process.version;
}

std::string loaded_onnxruntime() {
  Loaded& process = loaded();
  const std::lock_guard lock(process.mutex);
  return process.handle == nullptr ? std::string() : path_of(process.handle);
}

}  // namespace fastdllm
