// Chooses the backend of a package's graph.
#include <algorithm>

#include "device.hpp"
#include "fastdllm/backend.hpp"
#include "fastdllm/error.hpp"
#include "fastdllm/package.hpp"
#include "onnxruntime/onnxruntime_session.hpp"
#include "support/concat.hpp"
#include "tensorrt/tensorrt_session.hpp"

namespace fastdllm {
namespace {

[[noreturn]] void reject(const std::string& message) {
  throw Error(ErrorCode::bad_config, message);
}

void require_backend(const std::string& name) {
  if (name != "auto" && name != "onnxruntime" && name != "tensorrt") {
    reject(concat("backend is '", name, "'; expected auto, onnxruntime or tensorrt"));
  }
}

}  // namespace

std::vector<std::string> built_backends() {
  std::vector<std::string> names{"onnxruntime"};
  if (has_tensorrt()) names.emplace_back("tensorrt");
  return names;
}

std::unique_ptr<Session> open_session(const PackageInfo& package, const SessionOptions& options) {
  require_backend(options.backend);
  const Device device = parse_device(options.device);
  const bool named = options.backend == "tensorrt";
  if (named && !device.cuda) {
    reject(concat("backend 'tensorrt' computes on a GPU; device is '", options.device,
                  "', expected cuda or cuda:N"));
  }
  const bool wants_engine = !options.tensorrt_engine.empty();
  const bool chosen =
      options.backend == "auto" && device.cuda &&
      (wants_engine || (has_tensorrt() && finds_tensorrt_engine(package, options, device)));
  if (named || chosen) return open_tensorrt_session(package, options, device);
  if (wants_engine) {
    reject(concat("tensorrt_engine is '", options.tensorrt_engine, "' with backend '",
                  options.backend, "' and device '", options.device,
                  "'; expected backend auto or tensorrt and device cuda or cuda:N"));
  }
  return open_onnxruntime_session(package.graph, options, device);
}

}  // namespace fastdllm
