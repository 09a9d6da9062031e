#include "cudart.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "../library.hpp"
#include "fastdllm/error.hpp"
#include "support/concat.hpp"

namespace fastdllm::cuda {

// As in cuda_runtime_api.h of CUDA 12 and 13. A backend that has that header checks the constants.
struct Functions {
  int (*cudaRuntimeGetVersion)(int*);
  int (*cudaGetDeviceCount)(int*);
  int (*cudaSetDevice)(int);
  int (*cudaGetDeviceProperties)(void*, int);
  int (*cudaDeviceGetAttribute)(int*, int, int);
  int (*cudaMemGetInfo)(std::size_t*, std::size_t*);
  const char* (*cudaGetErrorString)(int);
  int (*cudaGetLastError)();
  int (*cudaMalloc)(void**, std::size_t);
  int (*cudaFree)(void*);
  int (*cudaHostAlloc)(void**, std::size_t, unsigned);
  int (*cudaFreeHost)(void*);
  int (*cudaMemcpyAsync)(void*, const void*, std::size_t, int, StreamHandle);
  int (*cudaStreamCreateWithFlags)(StreamHandle*, unsigned);
  int (*cudaStreamDestroy)(StreamHandle);
  int (*cudaStreamSynchronize)(StreamHandle);
  int (*cudaStreamBeginCapture)(StreamHandle, int);
  int (*cudaStreamEndCapture)(StreamHandle, void**);
  int (*cudaGraphInstantiateWithFlags)(void**, void*, unsigned long long);
  int (*cudaGraphDestroy)(void*);
  int (*cudaGraphExecDestroy)(void*);
  int (*cudaGraphLaunch)(void*, StreamHandle);
};

namespace {

constexpr int oldest_version = 12000;
constexpr int attribute_major = 75;
constexpr int attribute_minor = 76;
constexpr int attribute_integrated = 18;
constexpr int copy_anywhere = 4;        // cudaMemcpyDefault: the addresses say from where to where
constexpr unsigned own_stream = 1;      // cudaStreamNonBlocking: does not wait for others
constexpr int capture_this_thread = 1;  // cudaStreamCaptureModeThreadLocal
constexpr std::size_t property_bytes = 8192;  // cudaDeviceProp has about 1000

std::unique_ptr<const Functions> load(const std::string& library) {
  void* handle = open_library({.title = "CUDA runtime",
                               .remedy = "install CUDA 12 or newer",
                               .option = "cudart_library",
                               .variable = "FASTDLLM_CUDART",
                               .names = {"libcudart.so.13", "libcudart.so.12", "libcudart.so"}},
                              library);
  auto table = std::make_unique<Functions>();
  const auto find = [&]<typename Function>(Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(find_symbol(handle, name));
    if (function == nullptr) {
      throw Error(ErrorCode::backend,
                  concat("the CUDA runtime library has no ", name,
                         ": it is none, or too old; expected CUDA 12 or newer"));
    }
  };
  find(table->cudaRuntimeGetVersion, "cudaRuntimeGetVersion");
  find(table->cudaGetDeviceCount, "cudaGetDeviceCount");
  find(table->cudaSetDevice, "cudaSetDevice");
  find(table->cudaGetDeviceProperties, "cudaGetDeviceProperties");
  find(table->cudaDeviceGetAttribute, "cudaDeviceGetAttribute");
  find(table->cudaMemGetInfo, "cudaMemGetInfo");
  find(table->cudaGetErrorString, "cudaGetErrorString");
  find(table->cudaGetLastError, "cudaGetLastError");
  find(table->cudaMalloc, "cudaMalloc");
  find(table->cudaFree, "cudaFree");
  find(table->cudaHostAlloc, "cudaHostAlloc");
  find(table->cudaFreeHost, "cudaFreeHost");
  find(table->cudaMemcpyAsync, "cudaMemcpyAsync");
  find(table->cudaStreamCreateWithFlags, "cudaStreamCreateWithFlags");
  find(table->cudaStreamDestroy, "cudaStreamDestroy");
  find(table->cudaStreamSynchronize, "cudaStreamSynchronize");
  find(table->cudaStreamBeginCapture, "cudaStreamBeginCapture");
  find(table->cudaStreamEndCapture, "cudaStreamEndCapture");
  find(table->cudaGraphInstantiateWithFlags, "cudaGraphInstantiateWithFlags");
  find(table->cudaGraphDestroy, "cudaGraphDestroy");
  find(table->cudaGraphExecDestroy, "cudaGraphExecDestroy");
  find(table->cudaGraphLaunch, "cudaGraphLaunch");
  return table;
}

std::string megabytes(std::size_t bytes) {
  return concat((bytes + 999'999) / 1'000'000, " MB");
}

std::string holding(const Runtime& runtime, std::size_t bytes, std::string_view what) {
  return concat("holding ", megabytes(bytes), " of ", what, " (", megabytes(runtime.free_bytes()),
                " are free on the GPU)");
}

}  // namespace

std::shared_ptr<const Runtime> Runtime::open(const std::string& library, int device) {
  return std::shared_ptr<const Runtime>(new Runtime(library, device));
}

Runtime::Runtime(const std::string& library, int device)
    : functions_(load(library)), device_(device) {
  const Functions& cuda = *functions_;
  int version = 0;
  check(cuda.cudaRuntimeGetVersion(&version), "asking for its version");
  if (version < oldest_version) {
    throw Error(ErrorCode::backend,
                concat("the CUDA runtime library is of version ", version / 1000, ".",
                       version % 1000 / 10, ", too old; expected 12.0 or newer"));
  }
  version_ = concat(version / 1000, ".", version % 1000 / 10);
  int count = 0;
  check(cuda.cudaGetDeviceCount(&count), "looking for GPUs");
  if (device >= count) {
    throw Error(ErrorCode::backend, concat("device is cuda:", device, "; this machine has ", count,
                                           count == 1 ? " GPU: cuda:0" : " GPUs"));
  }
  use();
  // The structure differs from version to version, but for the name it begins with.
  alignas(16) std::array<char, property_bytes> properties{};
  check(cuda.cudaGetDeviceProperties(properties.data(), device), "asking for the GPU's name");
  constexpr std::ptrdiff_t name_bytes = 256;
  name_ = std::string(properties.data(),
                      std::find(properties.data(), properties.data() + name_bytes, '\0'));
  int major = 0;
  int minor = 0;
  int integrated = 0;
  check(cuda.cudaDeviceGetAttribute(&major, attribute_major, device), "asking for the GPU's kind");
  check(cuda.cudaDeviceGetAttribute(&minor, attribute_minor, device), "asking for the GPU's kind");
  check(cuda.cudaDeviceGetAttribute(&integrated, attribute_integrated, device),
        "asking for the GPU's kind");
  target_ = concat("sm", major, minor);
  integrated_ = integrated != 0;
}

Runtime::~Runtime() = default;

void Runtime::use() const {
  check(functions_->cudaSetDevice(device_), "choosing the GPU");
}

std::size_t Runtime::free_bytes() const {
  use();
  std::size_t free = 0;
  std::size_t total = 0;
  check(functions_->cudaMemGetInfo(&free, &total), "asking for free memory");
  return free;
}

std::int64_t Runtime::free_own_bytes() const {
  return integrated_ ? 0 : static_cast<std::int64_t>(free_bytes());
}

void Runtime::check(int status, std::string_view what) const {
  if (status == 0) return;
  functions_->cudaGetLastError();  // else the next library on this thread takes it for its own
  throw Error(ErrorCode::backend,
              concat("CUDA failed in ", what, ": ", functions_->cudaGetErrorString(status), " (",
                     status, ")"));
}

DeviceMemory::DeviceMemory(std::shared_ptr<const Runtime> runtime, std::size_t bytes,
                           std::string_view what)
    : runtime_(std::move(runtime)) {
  runtime_->use();
  const int status = runtime_->functions().cudaMalloc(&data_, std::max<std::size_t>(bytes, 1));
  if (status != 0) runtime_->check(status, holding(*runtime_, bytes, what));
}

DeviceMemory::~DeviceMemory() {
  runtime_->functions().cudaSetDevice(runtime_->device());
  runtime_->functions().cudaFree(data_);
}

PinnedMemory::PinnedMemory(std::shared_ptr<const Runtime> runtime, std::size_t bytes,
                           std::string_view what)
    : runtime_(std::move(runtime)) {
  runtime_->use();
  const int status =
      runtime_->functions().cudaHostAlloc(&data_, std::max<std::size_t>(bytes, 1), 0);
  if (status != 0) runtime_->check(status, holding(*runtime_, bytes, what));
}

PinnedMemory::~PinnedMemory() {
  runtime_->functions().cudaFreeHost(data_);
}

Graph::Graph(std::shared_ptr<const Runtime> runtime, void* executable) noexcept
    : runtime_(std::move(runtime)), executable_(executable) {}

Graph::~Graph() {
  runtime_->functions().cudaGraphExecDestroy(executable_);
}

void Graph::launch(const Stream& stream) const {
  runtime_->use();
  runtime_->check(runtime_->functions().cudaGraphLaunch(executable_, stream.handle()),
                  "launching a graph");
}

Stream::Stream(std::shared_ptr<const Runtime> runtime) : runtime_(std::move(runtime)) {
  runtime_->use();
  runtime_->check(runtime_->functions().cudaStreamCreateWithFlags(&stream_, own_stream),
                  "making a stream");
}

Stream::~Stream() {
  runtime_->functions().cudaSetDevice(runtime_->device());
  runtime_->functions().cudaStreamSynchronize(stream_);
  runtime_->functions().cudaStreamDestroy(stream_);
}

void Stream::copy(void* target, const void* source, std::size_t bytes) const {
  runtime_->use();
  runtime_->check(
      runtime_->functions().cudaMemcpyAsync(target, source, bytes, copy_anywhere, stream_),
      "copying");
}

void Stream::synchronize() const {
  runtime_->use();
  runtime_->check(runtime_->functions().cudaStreamSynchronize(stream_), "a pass");
}

std::unique_ptr<Graph> Stream::capture(const std::function<bool()>& record) const {
  const Functions& cuda = runtime_->functions();
  runtime_->use();
  const auto failed = [&](int status) {
    if (status != 0) cuda.cudaGetLastError();  // no error of ours: the work can run uncaptured
    return status != 0;
  };
  if (failed(cuda.cudaStreamBeginCapture(stream_, capture_this_thread))) return nullptr;
  void* graph = nullptr;
  bool recorded = false;
  try {
    recorded = record();
  } catch (...) {
    failed(cuda.cudaStreamEndCapture(stream_, &graph));
    if (graph != nullptr) cuda.cudaGraphDestroy(graph);
    throw;
  }
  const bool ended = !failed(cuda.cudaStreamEndCapture(stream_, &graph)) && graph != nullptr;
  void* executable = nullptr;
  const bool made =
      recorded && ended && !failed(cuda.cudaGraphInstantiateWithFlags(&executable, graph, 0));
  if (graph != nullptr) cuda.cudaGraphDestroy(graph);
  if (!made) return nullptr;
  return std::unique_ptr<Graph>(new Graph(runtime_, executable));
}

}  // namespace fastdllm::cuda
