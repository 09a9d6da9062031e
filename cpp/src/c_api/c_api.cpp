// Errors, names and outputs of the C API.
#include "c_api/c_api.hpp"

#include "fastdllm/version.h"

namespace fastdllm::c_api {
namespace {

static_assert(FASTDLLM_BAD_PACKAGE == static_cast<int>(ErrorCode::bad_package) + 1);
static_assert(FASTDLLM_BAD_CONFIG == static_cast<int>(ErrorCode::bad_config) + 1);
static_assert(FASTDLLM_BACKEND == static_cast<int>(ErrorCode::backend) + 1);
static_assert(FASTDLLM_OVERLOADED == static_cast<int>(ErrorCode::overloaded) + 1);
static_assert(FASTDLLM_NUMERIC == static_cast<int>(ErrorCode::numeric) + 1);
static_assert(FASTDLLM_CACHE_NONE == static_cast<int>(CacheMode::none));
static_assert(FASTDLLM_CACHE_PREFIX == static_cast<int>(CacheMode::prefix));
static_assert(FASTDLLM_CACHE_DUAL == static_cast<int>(CacheMode::dual));
static_assert(FASTDLLM_CACHE_AUTO == static_cast<int>(CacheMode::automatic));
static_assert(FASTDLLM_REMASKING_LOW_CONFIDENCE == static_cast<int>(Remasking::low_confidence));
static_assert(FASTDLLM_REMASKING_RANDOM == static_cast<int>(Remasking::random));
static_assert(FASTDLLM_REMASKING_MARGIN == static_cast<int>(Remasking::margin));
static_assert(FASTDLLM_REMASKING_ENTROPY == static_cast<int>(Remasking::entropy));
static_assert(FASTDLLM_REMASKING_SEQUENTIAL == static_cast<int>(Remasking::sequential));
static_assert(FASTDLLM_REMASKING_ORIGIN == static_cast<int>(Remasking::origin));
static_assert(FASTDLLM_STOP_AT_TOKEN == static_cast<int>(StopAt::token));
static_assert(FASTDLLM_STOP_AT_BLOCK == static_cast<int>(StopAt::block));
static_assert(FASTDLLM_FINISH_STOP == static_cast<int>(FinishReason::stop));
static_assert(FASTDLLM_FINISH_LENGTH == static_cast<int>(FinishReason::length));
static_assert(FASTDLLM_FINISH_ABORT == static_cast<int>(FinishReason::abort));

// name_of() gives views on literals; "unknown" for what is no value of the enum.
template <typename Enum>
const char* name(std::int32_t value) noexcept {
  return name_of(static_cast<Enum>(value)).data();
}

template <typename T>
const T* value_of(const fastdllm_output* output) noexcept {
  return output == nullptr ? nullptr : std::get_if<T>(&output->value);
}

}  // namespace

fastdllm_status Failure::set(fastdllm_status status, const char* message) noexcept {
  status_ = status;
  try {
    message_ = message;
  } catch (...) {
    fallback_ = "there was no memory for the message";
  }
  return status;
}

fastdllm_status Failure::take_current() noexcept {
  try {
    throw;
  } catch (const StatusError& error) {
    return set(error.status(), error.what());
  } catch (const Error& error) {
    return set(static_cast<fastdllm_status>(error.code()) + 1, error.what());
  } catch (const std::bad_alloc&) {
    return set(FASTDLLM_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return set(FASTDLLM_INTERNAL, error.what());
  } catch (...) {
    return set(FASTDLLM_INTERNAL, "an exception of an unknown type");
  }
}

}  // namespace fastdllm::c_api

using namespace fastdllm;
using fastdllm::c_api::name;
using fastdllm::c_api::value_of;

const char* fastdllm_status_name(fastdllm_status status) {
  switch (status) {
    case FASTDLLM_OK: return "ok";
    case FASTDLLM_BAD_PACKAGE: return "bad_package";
    case FASTDLLM_BAD_CONFIG: return "bad_config";
    case FASTDLLM_BACKEND: return "backend";
    case FASTDLLM_OVERLOADED: return "overloaded";
    case FASTDLLM_NUMERIC: return "numeric";
    case FASTDLLM_NULL_ARGUMENT: return "null_argument";
    case FASTDLLM_BAD_STRUCT: return "bad_struct";
    case FASTDLLM_NOT_DONE: return "not_done";
    case FASTDLLM_OUT_OF_MEMORY: return "out_of_memory";
    case FASTDLLM_INTERNAL: return "internal";
    default: return "unknown";
  }
}

const char* fastdllm_cache_mode_name(fastdllm_cache_mode mode) {
  return name<CacheMode>(mode);
}

const char* fastdllm_remasking_name(fastdllm_remasking remasking) {
  return name<Remasking>(remasking);
}

const char* fastdllm_stop_at_name(fastdllm_stop_at stop_at) {
  return name<StopAt>(stop_at);
}

const char* fastdllm_finish_reason_name(fastdllm_finish_reason reason) {
  return name<FinishReason>(reason);
}

const char* fastdllm_version(void) {
  return version();
}

void fastdllm_output_free(fastdllm_output* output) {
  delete output;
}

const char* fastdllm_output_error(const fastdllm_output* output) {
  return output == nullptr ? "" : output->failure.message();
}

const std::int32_t* fastdllm_output_ids(const fastdllm_output* output) {
  const auto* ids = value_of<std::vector<std::int32_t>>(output);
  return ids == nullptr ? nullptr : ids->data();
}

const float* fastdllm_output_logits(const fastdllm_output* output) {
  const auto* logits = value_of<std::vector<float>>(output);
  return logits == nullptr ? nullptr : logits->data();
}

const char* fastdllm_output_text(const fastdllm_output* output) {
  const auto* text = value_of<std::string>(output);
  return text == nullptr ? nullptr : text->c_str();
}

std::int64_t fastdllm_output_size(const fastdllm_output* output) {
  if (const auto* ids = value_of<std::vector<std::int32_t>>(output)) return std::ssize(*ids);
  if (const auto* logits = value_of<std::vector<float>>(output)) return std::ssize(*logits);
  if (const auto* text = value_of<std::string>(output)) return std::ssize(*text);
  return 0;
}
