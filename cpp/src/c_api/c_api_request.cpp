// Requests of the C API.
#include "c_api/c_api.hpp"

namespace fastdllm::c_api {

fastdllm_status settle(fastdllm_request& request) noexcept {
  if (!request.wait) return request.failure.status();
  {
    const std::lock_guard lock(request.mutex);
    if (request.settled) return request.failure.status();
  }
  Answer answer;
  Failure failure;
  // Without the lock, because the engine's own thread must not wait for it.
  const fastdllm_status status = guard(failure, [&] { answer = request.wait(); });
  if (status != FASTDLLM_OK && !request.wait_for({})) return FASTDLLM_NOT_DONE;
  const std::lock_guard lock(request.mutex);
  if (!request.settled) {
    request.answer = std::move(answer);
    request.failure = std::move(failure);
    request.settled = true;
  }
  return request.failure.status();
}

}  // namespace fastdllm::c_api

using namespace fastdllm;
using namespace fastdllm::c_api;

void fastdllm_request_free(fastdllm_request* request) {
  delete request;
}

bool fastdllm_request_wait_for(const fastdllm_request* request, std::int64_t milliseconds) {
  constexpr std::int64_t a_year = std::int64_t{365} * 24 * 3600 * 1000;  // clocks overflow
  if (request == nullptr || !request->wait_for) return true;
  const auto time = std::chrono::milliseconds(std::clamp<std::int64_t>(milliseconds, 0, a_year));
  return request->wait_for(time);
}

bool fastdllm_request_done(const fastdllm_request* request) {
  return request == nullptr || !request->done || request->done();
}

fastdllm_status fastdllm_request_cancel(fastdllm_request* request) {
  if (request == nullptr) return FASTDLLM_NULL_ARGUMENT;
  if (request->cancel) request->cancel();
  return FASTDLLM_OK;
}

const char* fastdllm_request_error(fastdllm_request* request) {
  if (!fastdllm_request_done(request) || request == nullptr) return "";
  settle(*request);
  return request->failure.message();  // settled: nobody writes it any more
}

fastdllm_status fastdllm_request_result(fastdllm_request* request, fastdllm_result* result,
                                        std::size_t size) {
  return write_answer(request, result, size, [](const Answer& answer) {
    fastdllm_result c{};
    c.token_ids = answer.result.token_ids.data();
    c.logprobs = answer.result.logprobs.data();
    c.num_tokens = std::ssize(answer.result.token_ids);
    c.num_passes = answer.result.num_passes;
    c.finish_reason = static_cast<fastdllm_finish_reason>(answer.result.finish_reason);
    return c;
  });
}

fastdllm_status fastdllm_request_stats(fastdllm_request* request, fastdllm_stats* stats,
                                       std::size_t size) {
  return write_answer(request, stats, size, [](const Answer& answer) {
    const GenerationStats& of = answer.result.stats;
    return fastdllm_stats{.struct_size = 0,
                          .refresh_passes = of.refresh_passes,
                          .step_passes = of.step_passes,
                          .reused_rows = of.reused_rows,
                          .rows_computed = of.rows_computed,
                          .logit_rows_computed = of.logit_rows_computed,
                          .graph_seconds = of.graph_seconds,
                          .total_seconds = of.total_seconds,
                          .cache_bytes = of.cache_bytes};
  });
}
