#include "loader.hpp"

#include <dlfcn.h>
#include <onnxruntime_cxx_api.h>

#include <cstdlib>
#include <mutex>
#include <vector>

#include "../../concat.hpp"
#include "fastdllm/error.hpp"

namespace fastdllm {
namespace {

std::vector<std::string> candidates(const std::string& library) {
  if (!library.empty()) return {library};
  const char* from_environment = std::getenv("FASTDLLM_ONNXRUNTIME");
  if (from_environment != nullptr && *from_environment != '\0') return {from_environment};
  return {"libonnxruntime.so.1", "libonnxruntime.so"};
}

void* open_first(const std::vector<std::string>& libraries) {
  std::string tried;
  for (const std::string& library : libraries) {
    if (void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
    const char* problem = dlerror();
    tried += concat("\n  ", library, ": ", problem == nullptr ? "cannot be opened" : problem);
  }
  throw Error(ErrorCode::backend,
              concat("the ONNX Runtime library was not found; install onnxruntime, or name the "
                     "library by the option onnxruntime_library or the environment variable "
                     "FASTDLLM_ONNXRUNTIME. Tried:",
                     tried));
}

const OrtApiBase& api_base(void* handle) {
  using GetApiBase = const OrtApiBase* (*)();
  const auto get_api_base = reinterpret_cast<GetApiBase>(dlsym(handle, "OrtGetApiBase"));
  if (get_api_base == nullptr) {
    throw Error(ErrorCode::backend, "the library has no OrtGetApiBase: it is no ONNX Runtime");
  }
  return *get_api_base();
}

}  // namespace

std::string load_onnxruntime(const std::string& library) {
  static std::mutex mutex;
  static std::string version;
  const std::lock_guard lock(mutex);
  if (!version.empty()) return version;

  // ONNX Runtime's own telemetry is on by default; nobody who embeds this asked for it.
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
  const OrtApiBase& base = api_base(open_first(candidates(library)));
  const OrtApi* api = base.GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    throw Error(ErrorCode::backend,
                concat("ONNX Runtime ", base.GetVersionString(), " is too old; expected 1.",
                       ORT_API_VERSION, " or newer"));
  }
  Ort::InitApi(api);
  version = base.GetVersionString();
  return version;
}

}  // namespace fastdllm
