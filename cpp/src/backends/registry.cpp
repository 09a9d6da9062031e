// Chooses the backend of a package's graph.
#include "fastdllm/backend.hpp"

#include "onnxruntime/onnxruntime_session.hpp"

namespace fastdllm {

std::unique_ptr<Session> open_session(const std::filesystem::path& graph,
                                      const SessionOptions& options) {
  return open_onnxruntime_session(graph, options);
}

}  // namespace fastdllm
