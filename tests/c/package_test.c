/* The public API alone, on the package that FASTDLLM_TEST_PACKAGE names; 77 = skipped, there is
 * none. */
#include <fastdllm/fastdllm.h>
#include <stdlib.h>

#include "check.h"

static const int32_t prompt[] = {1, 2, 3};

typedef struct streamed {
  int32_t ids[64];
  int64_t committed;
  int64_t at_most; /* passes */
} streamed;

static bool collect(const fastdllm_commit_event* event, void* user_data) {
  streamed* seen = user_data;
  for (int64_t i = 0; i < event->num_positions; ++i) {
    seen->ids[event->positions[i]] = event->token_ids[i];
  }
  seen->committed += event->num_positions;
  return event->step + 1 < seen->at_most;
}

static fastdllm_result generate(fastdllm_engine* engine, const fastdllm_config* config,
                                streamed* seen, fastdllm_request** request) {
  fastdllm_callbacks callbacks;
  fastdllm_callbacks_default(&callbacks, sizeof callbacks);
  callbacks.on_commit = collect;
  callbacks.user_data = seen;
  fastdllm_result result;
  CHECK(fastdllm_engine_generate(engine, prompt, 3, config, &callbacks, request) == FASTDLLM_OK);
  CHECK(fastdllm_request_result(*request, &result, sizeof result) == FASTDLLM_OK);
  return result;
}

static void test_an_answer_is_what_was_streamed_and_can_be_cut(fastdllm_engine* engine) {
  fastdllm_config config;
  fastdllm_config_default(&config, sizeof config);
  config.max_new_tokens = 40;
  config.threshold = 0.9;
  config.ignore_eos = 1;
  streamed seen = {.at_most = 1000};
  fastdllm_request *whole = NULL, *cut = NULL;
  const fastdllm_result result = generate(engine, &config, &seen, &whole);
  CHECK(result.num_tokens == 40 && seen.committed == 40);
  CHECK(memcmp(seen.ids, result.token_ids, 40 * sizeof *seen.ids) == 0);

  streamed first = {.at_most = 1};
  const fastdllm_result aborted = generate(engine, &config, &first, &cut);
  CHECK(aborted.finish_reason == FASTDLLM_FINISH_ABORT && aborted.num_passes == 1);
  CHECK(memcmp(aborted.token_ids, result.token_ids,
               (size_t)aborted.num_tokens * sizeof *seen.ids) == 0);
  fastdllm_request_free(whole);
  fastdllm_request_free(cut);
}

static void test_facts_infill_and_logits(fastdllm_engine* engine) {
  fastdllm_package_info info;
  CHECK(fastdllm_engine_package(engine, &info, sizeof info) == FASTDLLM_OK);
  CHECK(info.num_layers > 0 && info.vocab_size > 100);
  CHECK_HOLDS(info.graph, info.path);
  CHECK_HOLDS(fastdllm_engine_backend(engine), "onnxruntime");
  const int32_t mask = (int32_t)info.mask_token_id;
  const int32_t canvas[] = {1, mask, 3, mask, mask, 4};
  fastdllm_request* request = NULL;
  fastdllm_result result;
  CHECK(fastdllm_engine_infill(engine, canvas, 6, NULL, NULL, &request) == FASTDLLM_OK);
  CHECK(fastdllm_request_result(request, &result, sizeof result) == FASTDLLM_OK);
  CHECK(result.num_tokens == 6 && result.token_ids[2] == 3 && result.token_ids[1] != mask);
  fastdllm_request_free(request);

  const int32_t position = 1;
  fastdllm_output* output = NULL;
  CHECK(fastdllm_engine_logits(engine, canvas, 6, &position, 1, FASTDLLM_NONE, &output) ==
        FASTDLLM_OK);
  CHECK(fastdllm_output_size(output) == info.vocab_size);
  fastdllm_output_free(output);
}

/* Comes first: a process keeps the first ONNX Runtime that it opened. */
static void test_what_the_backend_refuses(const char* package) {
  fastdllm_engine_options options;
  fastdllm_engine_options_default(&options, sizeof options);
  options.onnxruntime_library = "/nowhere/libonnxruntime.so";
  fastdllm_engine* engine = NULL;
  CHECK(fastdllm_engine_open(package, &options, &engine) == FASTDLLM_BACKEND);
  CHECK_HOLDS(fastdllm_engine_error(engine), "/nowhere/libonnxruntime.so");
  fastdllm_engine_free(engine);
  options.device = "abacus";
  CHECK(fastdllm_engine_open(package, &options, &engine) == FASTDLLM_BAD_CONFIG);
  CHECK_HOLDS(fastdllm_engine_error(engine), "abacus");
  fastdllm_engine_free(engine);
}

int main(void) {
  const char* package = getenv("FASTDLLM_TEST_PACKAGE");
  if (package == NULL) return puts("skipped: FASTDLLM_TEST_PACKAGE names no package"), 77;
  test_what_the_backend_refuses(package);
  fastdllm_engine_options options;
  fastdllm_engine_options_default(&options, sizeof options);
  options.threads = 2;
  fastdllm_engine* engine = NULL;
  CHECK(fastdllm_engine_open(package, &options, &engine) == FASTDLLM_OK);
  CHECK_TEXT(fastdllm_engine_error(engine), "");
  test_an_answer_is_what_was_streamed_and_can_be_cut(engine);
  test_facts_infill_and_logits(engine);
  fastdllm_engine_free(engine);
  return failures == 0 ? 0 : 1;
}
