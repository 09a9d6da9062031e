// What the files of the C API share: how errors become statuses, how structs of other versions are
// read and written, and what is behind the handles.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "fastdllm/engine.hpp"
#include "fastdllm/fastdllm.h"
#include "support/concat.hpp"

namespace fastdllm::c_api {

/// An error that C++ callers cannot make. Exported: one library throws it, the other catches it.
class FASTDLLM_API StatusError : public std::runtime_error {
 public:
  StatusError(fastdllm_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  [[nodiscard]] fastdllm_status status() const noexcept { return status_; }

 private:
  fastdllm_status status_;
};

/// A handle's error. Set once at most, and never changed, so that its message stays where it is.
class Failure {
 public:
  [[nodiscard]] fastdllm_status status() const noexcept { return status_; }
  [[nodiscard]] const char* message() const noexcept {
    return message_.empty() ? fallback_ : message_.c_str();
  }
  /// Of the exception that is being handled.
  FASTDLLM_API fastdllm_status take_current() noexcept;

 private:
  fastdllm_status set(fastdllm_status status, const char* message) noexcept;

  fastdllm_status status_ = FASTDLLM_OK;
  std::string message_;
  const char* fallback_ = "";  // where there was no memory for a message
};

/// Runs `call`. Every exception on its way to C ends here.
template <typename Call>
fastdllm_status guard(Failure& failure, const Call& call) noexcept {
  try {
    call();
    return FASTDLLM_OK;
  } catch (...) {
    return failure.take_current();
  }
}

/// A new handle, filled by `fill`, or with what went wrong there. The caller sees it when it is
/// complete only.
template <typename Handle, typename Fill>
fastdllm_status make(Handle** out, const Fill& fill) noexcept {
  if (out == nullptr) return FASTDLLM_NULL_ARGUMENT;
  *out = nullptr;
  auto* handle = new (std::nothrow) Handle;
  if (handle == nullptr) return FASTDLLM_OUT_OF_MEMORY;
  const fastdllm_status status = guard(handle->failure, [&] { fill(*handle); });
  *out = handle;
  return status;
}

/// Errors: StatusError.
template <typename T>
T& require(T* pointer, std::string_view name) {
  if (pointer == nullptr) throw StatusError(FASTDLLM_NULL_ARGUMENT, concat(name, " is NULL"));
  return *pointer;
}

/// Errors: StatusError; Error{bad_config} for a negative count.
template <typename T>
std::span<const T> span_of(const T* data, std::int64_t count, std::string_view name) {
  if (count < 0) {
    throw Error(ErrorCode::bad_config,
                concat("the number of ", name, " is ", count, "; expected at least 0"));
  }
  if (count > 0 && data == nullptr) {
    throw StatusError(FASTDLLM_NULL_ARGUMENT, concat(name, " is NULL; expected ", count, " of it"));
  }
  return {data, static_cast<std::size_t>(count)};
}

// Every header's struct is a multiple of its alignment, so that no field is cut; and small, so that
// a struct_size that nobody set is not believed.
template <typename T>
constexpr bool is_size_of(std::size_t size) noexcept {
  return size >= sizeof(std::size_t) && size <= 4096 && size % alignof(T) == 0;
}

/// Options of an older, this or a newer version of the header; `defaults` where they say nothing.
/// Errors: StatusError.
template <typename T>
T read_struct(const T* given, const T& defaults, std::string_view name) {
  if (given == nullptr) return defaults;
  const std::size_t size = given->struct_size;
  if (!is_size_of<T>(size)) {
    throw StatusError(FASTDLLM_BAD_STRUCT,
                      concat(name, ".struct_size is ", size, "; expected that of a struct that ",
                             name, "_default() filled, ", sizeof(T), " in this version"));
  }
  T value = defaults;
  const std::size_t known = std::min(size, sizeof(T));
  std::memcpy(static_cast<void*>(&value), given, known);
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (!std::all_of(bytes + known, bytes + size, [](unsigned char byte) { return byte == 0; })) {
    throw StatusError(FASTDLLM_BAD_STRUCT, concat(name, " is of a newer version, ", size,
                                                  " bytes, and sets a field behind the ", sizeof(T),
                                                  " that this library knows; expected 0 there"));
  }
  return value;
}

/// `value` as a header knows it whose struct has `size` bytes.
template <typename T>
fastdllm_status write_struct(T* target, std::size_t size, T value) noexcept {
  if (target == nullptr) return FASTDLLM_NULL_ARGUMENT;
  if (!is_size_of<T>(size)) return FASTDLLM_BAD_STRUCT;
  value.struct_size = size;
  std::memset(static_cast<void*>(target), 0, size);
  std::memcpy(static_cast<void*>(target), &value, std::min(size, sizeof(T)));
  return FASTDLLM_OK;
}

/// Errors: Error{bad_config}, StatusError.
[[nodiscard]] FASTDLLM_API GenerationConfig config_of(const fastdllm_config* given);

struct EngineSetup {
  SessionOptions session;
  EngineLimits limits;
};
/// Errors: StatusError.
[[nodiscard]] FASTDLLM_API EngineSetup setup_of(const fastdllm_engine_options* given);

[[nodiscard]] inline fastdllm_commit_event event_of(const CommitEvent& event) noexcept {
  return {.struct_size = sizeof(fastdllm_commit_event),
          .step = event.step,
          .block = event.block,
          .block_start = event.block_start,
          .block_end = event.block_end,
          .positions = event.positions.data(),
          .token_ids = event.token_ids.data(),
          .confidences = event.confidences.data(),
          .num_positions = std::ssize(event.positions),
          .block_finished = event.block_finished ? 1 : 0,
          .refreshed = event.refreshed ? 1 : 0,
          .rows = event.rows};
}

[[nodiscard]] inline DoneCallback done_callback(fastdllm_done_callback on_done, void* user_data) {
  if (on_done == nullptr) return {};
  return [on_done, user_data] { on_done(user_data); };
}

/// What a request gave; all but the result is of a request in text.
struct Answer {
  GenerationResult result{};
  std::string text{};
  std::optional<std::string> stop{};
  std::int64_t prompt_tokens = 0, completion_tokens = 0;
};

}  // namespace fastdllm::c_api

struct fastdllm_engine {
  fastdllm::c_api::Failure failure;
  std::optional<fastdllm::Engine> owned;
  fastdllm::Engine* engine = nullptr;
  std::string path, graph, backend;  // of it, as C wants them
};

struct fastdllm_request {
  fastdllm::c_api::Failure failure;                        // set when it is refused, or by settle()
  std::function<bool(std::chrono::nanoseconds)> wait_for;  // these four are empty in one that was
  std::function<bool()> done;                              // refused
  std::function<void()> cancel;
  std::function<fastdllm::c_api::Answer()> wait;
  bool has_text = false;
  std::mutex mutex;  // of the three below
  bool settled = false;
  fastdllm::c_api::Answer answer;
};

struct fastdllm_output {
  fastdllm::c_api::Failure failure;
  std::variant<std::monostate, std::vector<std::int32_t>, std::vector<float>, std::string> value;
};

namespace fastdllm::c_api {

/// `engine`: borrowed, owned by `handle` or what holds it.
FASTDLLM_API void set_engine(fastdllm_engine& handle, Engine& engine);

/// Waits for the end and keeps the answer, or the error.
FASTDLLM_API fastdllm_status settle(fastdllm_request& request) noexcept;

/// Errors: StatusError for none, or one that did not open.
template <typename Handle>
Handle& require_open(Handle* handle, std::string_view name) {
  Handle& opened = require(handle, name);
  if (opened.failure.status() != FASTDLLM_OK) {
    throw StatusError(opened.failure.status(),
                      concat("the ", name, " did not open: ", opened.failure.message()));
  }
  return opened;
}

/// Makes the handle of a Request or TextRequest; `answer_of` turns its result into an Answer.
template <typename Request, typename AnswerOf>
void follow(fastdllm_request& handle, const Request& request, AnswerOf answer_of) {
  handle.wait_for = [request](std::chrono::nanoseconds time) { return request.wait_for(time); };
  handle.done = [request] { return request.done(); };
  handle.cancel = [request] { request.cancel(); };
  handle.wait = [request, answer_of] { return answer_of(request.result()); };
}

/// Waits for the end; `of` makes a struct of the Answer. All is zero where the request failed.
template <typename T, typename Of>
fastdllm_status write_answer(fastdllm_request* request, T* target, std::size_t size,
                             const Of& of) noexcept {
  const fastdllm_status writable = write_struct(target, size, T{});
  if (writable != FASTDLLM_OK) return writable;
  if (request == nullptr) return FASTDLLM_NULL_ARGUMENT;
  const fastdllm_status status = settle(*request);
  return status == FASTDLLM_OK ? write_struct(target, size, of(request->answer)) : status;
}

}  // namespace fastdllm::c_api
