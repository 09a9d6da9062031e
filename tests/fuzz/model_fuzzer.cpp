// Any bytes are read as an ONNX model's places of tensor data, or refused by Error{bad_package}.
#include <span>

#include "fastdllm/error.hpp"
#include "libfuzzer.hpp"
#include "package/external_data.hpp"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto found = fastdllm::external_locations(std::as_bytes(std::span(data, size)), "model");
    for (const auto& location : found) fastdllm::fuzzing::require(location.size() <= size);
  } catch (const fastdllm::Error& refusal) {
    fastdllm::fuzzing::require(refusal.code() == fastdllm::ErrorCode::bad_package);
  }
  return 0;
}
