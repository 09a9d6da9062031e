#include "loader.hpp"

#include <onnxruntime_cxx_api.h>

#include <cstdlib>
#include <mutex>

#include "../library.hpp"
#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

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

}  // namespace

std::string load_onnxruntime(const std::string& library) {
  static std::mutex mutex;
  static std::string version;
  const std::lock_guard lock(mutex);
  if (!version.empty()) return version;

  // ONNX Runtime's own telemetry is on by default; nobody who embeds this asked for it.
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
  const OrtApiBase& base = api_base(open_onnxruntime(library));
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
