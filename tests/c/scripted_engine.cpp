#include "scripted_engine.h"

#include <cmath>

#include "c_api/c_api.hpp"
#include "scripted_session.hpp"

namespace {

fastdllm_engine* handle_of(fastdllm::testing::Scripted scripted) {
  scripted.session->logit_script = [](auto, std::int64_t position, std::int64_t v) {
    return v == position % 10 ? 8.0F : 0.0F;
  };
  auto* handle = new fastdllm_engine;
  fastdllm::c_api::set_engine(*handle, handle->owned.emplace(std::move(scripted.engine)));
  return handle;
}

}  // namespace

fastdllm_engine* scripted_engine(const fastdllm_engine_options* options) {
  return handle_of(fastdllm::testing::Scripted(fastdllm::c_api::setup_of(options).limits));
}

fastdllm_engine* broken_engine(void) {
  return handle_of(fastdllm::testing::Scripted(
      fastdllm::testing::scripted_package(),
      [](auto, auto) { return fastdllm::testing::Answer{.confidence = std::nan("")}; }));
}
