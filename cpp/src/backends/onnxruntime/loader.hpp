// Finds and opens the ONNX Runtime library of this process.
#pragma once

#include <string>

namespace fastdllm {

/// Initialises the Ort:: API once per process and returns the library's version. Tries `library`,
/// else the environment variable FASTDLLM_ONNXRUNTIME, else the loader's own search. A process
/// holds one ONNX Runtime: later calls return its version. Sets ORT_DISABLE_TELEMETRY=1 in the
/// process unless the variable is set already. Errors: Error{backend} listing what was tried,
/// naming a library that is too old, or where `library` is another file than the one that was
/// opened before.
std::string load_onnxruntime(const std::string& library);

}  // namespace fastdllm
