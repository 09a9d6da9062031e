#include "cuda_provider.hpp"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>
#include <vector>

#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm {
namespace {

std::shared_ptr<const cuda::Runtime> open_gpu(const std::string& cudart_library, int index) {
  const std::vector<std::string> providers = Ort::GetAvailableProviders();
  if (std::find(providers.begin(), providers.end(), "CUDAExecutionProvider") == providers.end()) {
    std::string found;
    for (const std::string& name : providers) found += concat(found.empty() ? "" : ", ", name);
    throw Error(ErrorCode::backend,
                concat("device is cuda:", index,
                       ", but this ONNX Runtime has no CUDA provider (it has ", found,
                       "); install onnxruntime-gpu, or name its library by the option "
                       "onnxruntime_library or the environment variable FASTDLLM_ONNXRUNTIME"));
  }
  return cuda::Runtime::open(cudart_library, index);
}

void require(OrtStatus* status) {
  Ort::ThrowOnError(status);
}

}  // namespace

CudaProvider::CudaProvider(const std::string& cudart_library, int index)
    : runtime_(open_gpu(cudart_library, index)), stream_(runtime_) {}

void CudaProvider::append_to(Ort::SessionOptions& options) const {
  const std::string index = std::to_string(runtime_->device());
  const std::array<std::pair<const char*, const char*>, 5> settings{{
      {"device_id", index.c_str()},
      {"arena_extend_strategy", "kSameAsRequested"},  // the cache wants what it would round up to
      {"cudnn_conv_algo_search", "HEURISTIC"},        // no convolution is worth a search
      {"use_tf32", "0"},                              // float32 means float32: same tokens
      {"enable_cuda_graph", "0"},                     // the shapes of passes vary
  }};
  std::array<const char*, settings.size()> keys{};
  std::array<const char*, settings.size()> values{};
  for (std::size_t i = 0; i < settings.size(); ++i) {
    std::tie(keys[i], values[i]) = settings[i];
  }
  const OrtApi& api = Ort::GetApi();
  try {
    OrtCUDAProviderOptionsV2* made = nullptr;
    require(api.CreateCUDAProviderOptions(&made));
    const std::unique_ptr<OrtCUDAProviderOptionsV2, decltype(api.ReleaseCUDAProviderOptions)> cuda(
        made, api.ReleaseCUDAProviderOptions);
    require(api.UpdateCUDAProviderOptions(cuda.get(), keys.data(), values.data(), keys.size()));
    require(api.UpdateCUDAProviderOptionsWithValue(cuda.get(), "user_compute_stream",
                                                   stream_.handle()));
    options.AppendExecutionProvider_CUDA_V2(*cuda);
  } catch (const Ort::Exception& problem) {
    throw Error(ErrorCode::backend,
                concat("ONNX Runtime cannot use its CUDA provider; it needs the CUDA libraries of "
                       "its own version and cuDNN where the loader finds them: ",
                       problem.what()));
  }
}

Ort::MemoryInfo CudaProvider::memory_info() const {
  return {"Cuda", OrtDeviceAllocator, runtime_->device(), OrtMemTypeDefault};
}

std::unique_ptr<Memory> CudaProvider::allocate(std::size_t bytes) const {
  return std::make_unique<cuda::DeviceMemory>(runtime_, bytes, "K/V cache");
}

void CudaProvider::copy(void* target, const void* source, std::size_t bytes) const {
  stream_.copy(target, source, bytes);
}

}  // namespace fastdllm
