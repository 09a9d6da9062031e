// libcudart without a GPU; see fake_cuda.hpp. Declares CUDA's functions itself, as their users do.
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "fake_cuda.hpp"

namespace fake_cuda {
namespace {

constexpr int invalid_value = 1;
constexpr int out_of_memory = 2;
constexpr int no_device = 100;
constexpr int invalid_device = 101;
constexpr int capture_invalidated = 901;
constexpr std::size_t address_space = std::size_t{1} << 30;
constexpr std::size_t alignment = 256;

using Work = std::vector<std::function<void()>>;

struct Stream {
  Work pending;
  std::unique_ptr<Work> captured;  // while it is being captured
  bool broken = false;             // that cannot be captured
};

std::byte* reserve(int protection) {
  void* memory =
      mmap(nullptr, address_space, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return static_cast<std::byte*>(memory);
}

struct Device {
  std::byte* addresses = reserve(PROT_NONE);
  std::byte* contents = reserve(PROT_READ | PROT_WRITE);
  std::map<std::size_t, std::size_t> held;  // offset -> bytes
  std::map<std::byte*, std::size_t> pinned;
  std::set<Stream*> streams;
};

Device& device() {
  static Device made;
  return made;
}

bool is_device(const void* address) {
  const auto* byte = static_cast<const std::byte*>(address);
  return byte >= device().addresses && byte < device().addresses + address_space;
}

bool is_pinned(const void* address) {
  auto* byte = const_cast<std::byte*>(static_cast<const std::byte*>(address));
  const auto after = device().pinned.upper_bound(byte);
  if (after == device().pinned.begin()) return false;
  const auto& [first, bytes] = *std::prev(after);
  return byte < first + bytes;
}

void run(Stream& stream) {
  for (const auto& work : std::exchange(stream.pending, {})) work();
}

// The status that a test set for a function, else 0.
int failure(const char* function) {
  const auto found = state().failures.find(function);
  if (found == state().failures.end()) return 0;
  return state().last_error = found->second;
}

int answer(int status) {
  if (status != 0) state().last_error = status;
  return status;
}

}  // namespace

State& state() {
  static State made;
  return made;
}

void reset() {
  const std::size_t used = state().used;
  state() = {};
  state().used = used;
}

void* content_of(const void* address, std::size_t bytes) {
  if (!is_device(address)) return nullptr;
  const auto offset =
      static_cast<std::size_t>(static_cast<const std::byte*>(address) - device().addresses);
  const auto after = device().held.upper_bound(offset);
  if (after == device().held.begin()) return nullptr;
  const auto& [first, held] = *std::prev(after);
  if (offset + bytes > first + held) return nullptr;
  return device().contents + offset;
}

void enqueue(void* handle, std::function<void()> work) {
  auto& stream = *static_cast<Stream*>(handle);
  (stream.captured ? *stream.captured : stream.pending).push_back(std::move(work));
}

bool is_capturing(void* handle) {
  return static_cast<Stream*>(handle)->captured != nullptr;
}

void break_capture(void* handle) {
  static_cast<Stream*>(handle)->broken = true;
}

extern "C" {

int cudaRuntimeGetVersion(int* version) {
  *version = state().version;
  return failure("cudaRuntimeGetVersion");
}

int cudaGetDeviceCount(int* count) {
  *count = state().devices;
  return state().devices == 0 ? answer(no_device) : failure("cudaGetDeviceCount");
}

int cudaSetDevice(int index) {
  if (index < 0 || index >= state().devices) return answer(invalid_device);
  state().current_device = index;
  return failure("cudaSetDevice");
}

int cudaGetDeviceProperties(void* properties, int) {
  constexpr std::size_t bytes = 1032;  // as in CUDA 12
  std::memset(properties, 0x5a, bytes);
  std::strcpy(static_cast<char*>(properties), "Fake GPU");
  return failure("cudaGetDeviceProperties");
}

int cudaDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? state().major : attribute == 76 ? state().minor : state().integrated;
  return failure("cudaDeviceGetAttribute");
}

int cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = state().memory;
  *free = state().memory - state().used;
  return failure("cudaMemGetInfo");
}

const char* cudaGetErrorString(int status) {
  return status == out_of_memory ? "out of memory"
         : status == no_device   ? "no CUDA-capable device is detected"
                                 : "fake error";
}

int cudaGetLastError() {
  return std::exchange(state().last_error, 0);
}

int cudaMalloc(void** address, std::size_t bytes) {
  if (const int status = failure("cudaMalloc")) return status;
  if (bytes > state().memory - state().used) return answer(out_of_memory);
  std::size_t offset = 0;  // the first gap
  for (const auto& [first, held] : device().held) {
    if (offset + bytes <= first) break;
    offset = (first + held + alignment - 1) / alignment * alignment;
  }
  device().held[offset] = bytes;
  std::memset(device().contents + offset, 0x7b, bytes);  // nobody may rely on what was there
  state().used += bytes;
  ++state().counts.allocations;
  *address = device().addresses + offset;
  return 0;
}

int cudaFree(void* address) {
  if (address == nullptr) return 0;
  for (Stream* stream : device().streams) run(*stream);
  const auto offset =
      static_cast<std::size_t>(static_cast<std::byte*>(address) - device().addresses);
  const auto found = device().held.find(offset);
  if (!is_device(address) || found == device().held.end()) return answer(invalid_value);
  state().used -= found->second;
  device().held.erase(found);
  ++state().counts.frees;
  return 0;
}

int cudaHostAlloc(void** address, std::size_t bytes, unsigned) {
  if (const int status = failure("cudaHostAlloc")) return status;
  *address = std::malloc(bytes);
  device().pinned[static_cast<std::byte*>(*address)] = bytes;
  ++state().counts.pinned_allocations;
  return 0;
}

int cudaFreeHost(void* address) {
  if (address == nullptr) return 0;
  if (device().pinned.erase(static_cast<std::byte*>(address)) == 0) return answer(invalid_value);
  for (Stream* stream : device().streams) run(*stream);
  std::free(address);
  ++state().counts.pinned_frees;
  return 0;
}

int cudaMemcpyAsync(void* target, const void* source, std::size_t bytes, int kind, void* handle) {
  if (const int status = failure("cudaMemcpyAsync")) return status;
  void* to = is_device(target) ? content_of(target, bytes) : target;
  const void* from = is_device(source) ? content_of(source, bytes) : source;
  if (kind != 4 || to == nullptr || from == nullptr) return answer(invalid_value);
  Counts& counts = state().counts;
  ++(is_device(target) ? (is_device(source) ? counts.copies_on_device : counts.copies_to_device)
                       : counts.copies_to_host);
  enqueue(handle, [=] { std::memcpy(to, from, bytes); });
  const auto waits = [](const void* side) { return !is_device(side) && !is_pinned(side); };
  if (!waits(target) && !waits(source)) return 0;
  if (is_capturing(handle)) break_capture(handle);
  run(*static_cast<Stream*>(handle));
  return 0;
}

int cudaStreamCreateWithFlags(void** handle, unsigned) {
  if (const int status = failure("cudaStreamCreateWithFlags")) return status;
  auto* stream = new Stream;
  device().streams.insert(stream);
  ++state().counts.streams;
  *handle = stream;
  return 0;
}

int cudaStreamDestroy(void* handle) {
  auto* stream = static_cast<Stream*>(handle);
  device().streams.erase(stream);
  delete stream;
  ++state().counts.stream_frees;
  return 0;
}

int cudaStreamSynchronize(void* handle) {
  auto& stream = *static_cast<Stream*>(handle);
  if (stream.captured) {
    stream.broken = true;
    return answer(capture_invalidated);
  }
  run(stream);
  ++state().counts.synchronizations;
  return failure("cudaStreamSynchronize");
}

int cudaStreamBeginCapture(void* handle, int) {
  if (const int status = failure("cudaStreamBeginCapture")) return status;
  auto& stream = *static_cast<Stream*>(handle);
  stream.captured = std::make_unique<Work>();
  stream.broken = false;
  ++state().counts.captures;
  return 0;
}

int cudaStreamEndCapture(void* handle, void** graph) {
  auto& stream = *static_cast<Stream*>(handle);
  std::unique_ptr<Work> work = std::move(stream.captured);
  *graph = nullptr;
  if (const int status = failure("cudaStreamEndCapture")) return status;
  if (stream.broken) return answer(capture_invalidated);
  *graph = work.release();
  return 0;
}

int cudaGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  if (const int status = failure("cudaGraphInstantiateWithFlags")) return status;
  *executable = new Work(*static_cast<Work*>(graph));
  ++state().counts.graphs;
  return 0;
}

int cudaGraphDestroy(void* graph) {
  delete static_cast<Work*>(graph);
  return 0;
}

int cudaGraphExecDestroy(void* executable) {
  for (Stream* stream : device().streams) run(*stream);
  delete static_cast<Work*>(executable);
  ++state().counts.graph_frees;
  return 0;
}

int cudaGraphLaunch(void* executable, void* handle) {
  if (const int status = failure("cudaGraphLaunch")) return status;
  for (const auto& work : *static_cast<Work*>(executable)) enqueue(handle, work);
  ++state().counts.graph_launches;
  return 0;
}

}  // extern "C"
}  // namespace fake_cuda
