// A CUDA runtime without a GPU, as a shared library: what tests ask of it beyond CUDA's functions.
//
// Device memory has addresses that the host cannot touch: reading or writing one ends the process.
// Work on a stream waits for the stream to be synchronized, so that whoever reads too early, or
// changes what is still to be copied, is found out.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>

namespace fake_cuda {

struct Counts {
  int allocations = 0, frees = 0, pinned_allocations = 0, pinned_frees = 0;
  int copies_to_device = 0, copies_to_host = 0, copies_on_device = 0;
  int captures = 0, graphs = 0, graph_frees = 0, graph_launches = 0, synchronizations = 0;
  int streams = 0, stream_frees = 0;
};

struct State {
  int version = 12090;
  int devices = 1;
  int major = 8, minor = 7;  // compute capability
  int integrated = 0;
  std::size_t memory = std::size_t{512} << 20;
  std::size_t used = 0;
  std::map<std::string, int> failures;  // function name -> status, as often as it is called
  int last_error = 0;
  int current_device = -1;
  Counts counts;
};

/// The library's state; lives as long as the library.
State& state();
/// As a fresh library, but for the memory that is still held.
void reset();
/// Where the content of `bytes` of device memory lies; nullptr if these are not inside one
/// allocation.
void* content_of(const void* device, std::size_t bytes);
/// Puts work on a stream, as a kernel; captured if the stream is being captured.
void enqueue(void* stream, std::function<void()> work);
[[nodiscard]] bool is_capturing(void* stream);
/// While the stream is captured: what cannot be, was tried.
void break_capture(void* stream);

}  // namespace fake_cuda
