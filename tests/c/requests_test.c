#define _POSIX_C_SOURCE 200809L /* nanosleep */
/* Requests of a C program: events, abort, cancel, many threads, engines that go first. */
#include <fastdllm/fastdllm.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "scripted_engine.h"

enum { most_tokens = 64 };

static fastdllm_engine* engine;

/* Two threads meet: one opens, the other waits for it. */
typedef struct gate {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool open;
} gate;

#define NEW_GATE {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false}

static void open_gate(gate* g) {
  pthread_mutex_lock(&g->mutex);
  g->open = true;
  pthread_cond_broadcast(&g->changed);
  pthread_mutex_unlock(&g->mutex);
}

static void pass_gate(gate* g) {
  pthread_mutex_lock(&g->mutex);
  while (!g->open) pthread_cond_wait(&g->changed, &g->mutex);
  pthread_mutex_unlock(&g->mutex);
}

static fastdllm_config small_config(int64_t max_new_tokens) {
  fastdllm_config config;
  fastdllm_config_default(&config, sizeof config);
  config.max_new_tokens = max_new_tokens;
  config.block_length = 8;
  return config;
}

static fastdllm_callbacks calling(fastdllm_commit_callback on_commit, void* user_data) {
  fastdllm_callbacks callbacks;
  CHECK(fastdllm_callbacks_default(&callbacks, sizeof callbacks) == FASTDLLM_OK);
  callbacks.on_commit = on_commit;
  callbacks.user_data = user_data;
  return callbacks;
}

static fastdllm_result result_of(fastdllm_request* request) {
  fastdllm_result result;
  CHECK(fastdllm_request_result(request, &result, sizeof result) == FASTDLLM_OK);
  return result;
}

/* --- events -------------------------------------------------------------------------------- */

typedef struct canvas {
  int32_t ids[most_tokens];
  double confidences[most_tokens];
  int64_t committed, events, last_block, finished_blocks, refreshes, rows;
} canvas;

static bool write_down(const fastdllm_commit_event* event, void* user_data) {
  canvas* seen = user_data;
  CHECK(event->struct_size == sizeof *event);
  CHECK(event->block_start <= event->block_end && event->block_end <= most_tokens);
  for (int64_t i = 0; i < event->num_positions; ++i) {
    seen->ids[event->positions[i]] = event->token_ids[i];
    seen->confidences[event->positions[i]] = event->confidences[i];
  }
  seen->committed += event->num_positions;
  seen->events += 1;
  seen->last_block = event->block;
  seen->finished_blocks += event->block_finished;
  seen->refreshes += event->refreshed;
  seen->rows += event->rows;
  return true;
}

static void test_the_events_are_the_answer(void) {
  canvas seen;
  memset(&seen, 0, sizeof seen);
  const fastdllm_config config = small_config(20);
  const fastdllm_callbacks callbacks = calling(write_down, &seen);
  const int32_t prompt[] = {1, 2, 3};
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_generate(engine, prompt, 3, &config, &callbacks, &request) == FASTDLLM_OK);
  const fastdllm_result result = result_of(request);
  CHECK(result.num_tokens == 20 && seen.committed == 20);
  CHECK(seen.events == result.num_passes && seen.last_block == 2 && seen.finished_blocks == 3);
  CHECK(result.finish_reason == FASTDLLM_FINISH_LENGTH);
  for (int64_t i = 0; i < result.num_tokens; ++i) {
    CHECK(result.token_ids[i] == (i + 3) % 10);
    CHECK(seen.ids[i] == result.token_ids[i]);
    CHECK(seen.confidences[i] > 0.7 && result.logprobs[i] < 0.0);
  }
  fastdllm_stats stats;
  CHECK(fastdllm_request_stats(request, &stats, sizeof stats) == FASTDLLM_OK);
  CHECK(seen.refreshes == stats.refresh_passes && seen.rows == stats.rows_computed);
  CHECK(stats.refresh_passes + stats.step_passes == result.num_passes);
  CHECK(stats.rows_computed > 20 && stats.total_seconds > 0.0);
  fastdllm_request_free(request);
}

static void test_arrays_of_options_arrive(void) {
  const fastdllm_logit_bias bias[] = {{7, 1e6}};
  const int32_t banned[] = {3, 4}, stop[] = {7};
  fastdllm_config config = small_config(16);
  config.logit_bias = bias;
  config.num_logit_bias = 1;
  config.banned_token_ids = banned;
  config.num_banned_token_ids = 2;
  config.stop_token_ids = stop;
  config.num_stop_token_ids = 1;
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_generate(engine, NULL, 0, &config, NULL, &request) == FASTDLLM_OK);
  const fastdllm_result result = result_of(request);
  CHECK(result.finish_reason == FASTDLLM_FINISH_STOP);
  CHECK(result.num_tokens == 1 && result.token_ids[0] == 7);
  fastdllm_request_free(request);
}

static void test_infill_fills_the_gaps(void) {
  const int32_t given[] = {5, 15, 15, 5};
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_infill(engine, given, 4, NULL, NULL, &request) == FASTDLLM_OK);
  fastdllm_result result = result_of(request);
  CHECK(result.num_tokens == 4 && result.token_ids[0] == 5 && result.token_ids[3] == 5);
  CHECK(result.token_ids[1] == 1 && result.token_ids[2] == 2);
  fastdllm_request_free(request);
  CHECK(fastdllm_engine_submit_infill(engine, given, 4, NULL, NULL, &request) == FASTDLLM_OK);
  result = result_of(request);
  CHECK(result.num_tokens == 4);
  fastdllm_request_free(request);
}

static void test_logits_and_facts(void) {
  const int32_t ids[] = {1, 2, 15}, positions[] = {2, 0};
  fastdllm_package_info info;
  CHECK(fastdllm_engine_package(engine, &info, sizeof info) == FASTDLLM_OK);
  CHECK(info.vocab_size == 16 && info.mask_token_id == 15 && info.num_eos_token_ids == 1);
  CHECK(info.eos_token_ids[0] == 14 && info.pad_token_id == FASTDLLM_NONE);
  CHECK_TEXT(info.attention, "bidirectional");
  CHECK_TEXT(fastdllm_engine_backend(engine), "scripted");
  fastdllm_output* output = NULL;
  CHECK(fastdllm_engine_logits(engine, ids, 3, positions, 2, FASTDLLM_NONE, &output) ==
        FASTDLLM_OK);
  CHECK(fastdllm_output_size(output) == 2 * info.vocab_size);
  CHECK(fastdllm_output_logits(output) != NULL && fastdllm_output_ids(output) == NULL);
  CHECK_TEXT(fastdllm_output_error(output), "");
  fastdllm_output_free(output);
}

/* --- ends ---------------------------------------------------------------------------------- */

static bool end_it(const fastdllm_commit_event* event, void* user_data) {
  (void)event;
  ++*(int64_t*)user_data;
  return false;
}

static void test_a_callback_ends_its_request(void) {
  int64_t events = 0;
  const fastdllm_config config = small_config(32);
  const fastdllm_callbacks callbacks = calling(end_it, &events);
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_generate(engine, NULL, 0, &config, &callbacks, &request) == FASTDLLM_OK);
  const fastdllm_result result = result_of(request);
  CHECK(result.finish_reason == FASTDLLM_FINISH_ABORT && result.num_passes == 1 && events == 1);
  CHECK_TEXT(fastdllm_request_error(request), "");
  fastdllm_request_free(request);
}

static void test_an_end_in_the_completing_pass_stays(void) {
  int64_t events = 0;
  const fastdllm_config config = small_config(1);
  const fastdllm_callbacks callbacks = calling(end_it, &events);
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_generate(engine, NULL, 0, &config, &callbacks, &request) == FASTDLLM_OK);
  CHECK(result_of(request).finish_reason == FASTDLLM_FINISH_LENGTH && events == 1);
  fastdllm_request_free(request);
}

typedef struct held {
  gate begun, released;
} held;

static bool hold(const fastdllm_commit_event* event, void* user_data) {
  held* h = user_data;
  (void)event;
  open_gate(&h->begun);
  pass_gate(&h->released);
  return true;
}

static void test_another_thread_cancels_within_a_pass(void) {
  held h = {NEW_GATE, NEW_GATE};
  const fastdllm_config config = small_config(32);
  const fastdllm_callbacks callbacks = calling(hold, &h);
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_submit(engine, NULL, 0, &config, &callbacks, &request) == FASTDLLM_OK);
  pass_gate(&h.begun);
  CHECK(!fastdllm_request_done(request));
  CHECK(!fastdllm_request_wait_for(request, 1));
  CHECK_TEXT(fastdllm_request_error(request), "");
  CHECK(fastdllm_request_cancel(request) == FASTDLLM_OK);
  open_gate(&h.released);
  CHECK(fastdllm_request_wait_for(request, INT64_MAX));
  const fastdllm_result result = result_of(request);
  CHECK(result.finish_reason == FASTDLLM_FINISH_ABORT && result.num_passes == 1);
  CHECK(fastdllm_request_cancel(request) == FASTDLLM_OK);
  CHECK(result_of(request).token_ids == result.token_ids);
  fastdllm_request_free(request);
}

static void test_one_cancelled_within_its_last_pass_keeps_its_end(void) {
  held h = {NEW_GATE, NEW_GATE};
  const fastdllm_config config = small_config(1);
  const fastdllm_callbacks callbacks = calling(hold, &h);
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_submit(engine, NULL, 0, &config, &callbacks, &request) == FASTDLLM_OK);
  pass_gate(&h.begun);
  CHECK(fastdllm_request_cancel(request) == FASTDLLM_OK);
  open_gate(&h.released);
  const fastdllm_result result = result_of(request);
  CHECK(result.finish_reason == FASTDLLM_FINISH_LENGTH && result.num_tokens == 1);
  fastdllm_request_free(request);
}

static void test_too_many_are_refused_and_engines_may_go_first(void) {
  fastdllm_engine_options options;
  fastdllm_engine_options_default(&options, sizeof options);
  options.max_batch = 1;
  options.max_waiting = 1;
  fastdllm_engine* narrow = scripted_engine(&options);
  held h = {NEW_GATE, NEW_GATE};
  const fastdllm_config config = small_config(32);
  const fastdllm_callbacks callbacks = calling(hold, &h);
  fastdllm_request *running = NULL, *waiting = NULL, *refused = NULL;
  CHECK(fastdllm_engine_submit(narrow, NULL, 0, &config, &callbacks, &running) == FASTDLLM_OK);
  CHECK(fastdllm_engine_submit(narrow, NULL, 0, &config, NULL, &waiting) == FASTDLLM_OK);
  CHECK(fastdllm_engine_submit(narrow, NULL, 0, &config, NULL, &refused) == FASTDLLM_OVERLOADED);
  CHECK_HOLDS(fastdllm_request_error(refused), "max_batch + max_waiting");
  pass_gate(&h.begun);
  CHECK(fastdllm_request_cancel(running) == FASTDLLM_OK);
  CHECK(fastdllm_request_cancel(waiting) == FASTDLLM_OK);
  open_gate(&h.released);
  fastdllm_engine_free(narrow);
  CHECK(result_of(running).finish_reason == FASTDLLM_FINISH_ABORT);
  CHECK(result_of(waiting).finish_reason == FASTDLLM_FINISH_ABORT);
  CHECK(result_of(waiting).num_tokens == 0);
  fastdllm_request_free(running);
  fastdllm_request_free(waiting);
  fastdllm_request_free(refused);
}

/* --- calls from a callback ----------------------------------------------------------------- */

typedef struct inside {
  gate submitted;
  fastdllm_request* request;
  int64_t calls;
} inside;

static bool wait_for_itself(const fastdllm_commit_event* event, void* user_data) {
  inside* own = user_data;
  (void)event;
  if (own->calls++ > 0) return true;
  pass_gate(&own->submitted);
  fastdllm_result result;
  CHECK(fastdllm_request_result(own->request, &result, sizeof result) == FASTDLLM_NOT_DONE);
  CHECK_TEXT(fastdllm_request_error(own->request), "");
  const time_t asked = time(NULL);
  CHECK(!fastdllm_request_wait_for(own->request, 3000));
  CHECK(time(NULL) - asked < 3);
  fastdllm_request* nested = NULL;
  CHECK(fastdllm_engine_generate(engine, NULL, 0, NULL, NULL, &nested) == FASTDLLM_BAD_CONFIG);
  CHECK(strlen(fastdllm_request_error(nested)) > 10);
  fastdllm_request_free(nested);
  fastdllm_output* output = NULL;
  const int32_t zero = 0;
  CHECK(fastdllm_engine_logits(engine, &zero, 1, &zero, 1, FASTDLLM_NONE, &output) ==
        FASTDLLM_BAD_CONFIG);
  fastdllm_output_free(output);
  return true;
}

static void test_a_callback_must_not_wait_for_the_engine(void) {
  inside own = {NEW_GATE, NULL, 0};
  const fastdllm_config config = small_config(8);
  const fastdllm_callbacks callbacks = calling(wait_for_itself, &own);
  CHECK(fastdllm_engine_submit(engine, NULL, 0, &config, &callbacks, &own.request) == FASTDLLM_OK);
  open_gate(&own.submitted);
  const fastdllm_result result = result_of(own.request);
  CHECK(result.finish_reason == FASTDLLM_FINISH_LENGTH && result.num_tokens == 8);
  fastdllm_request_free(own.request);
}

static void say_done(void* user_data) {
  open_gate(user_data);
}

static void test_done_is_called_once_the_answer_is_there(void) {
  gate done = NEW_GATE;
  fastdllm_callbacks callbacks = calling(NULL, &done);
  callbacks.on_done = say_done;
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_submit(engine, NULL, 0, NULL, &callbacks, &request) == FASTDLLM_OK);
  pass_gate(&done);
  CHECK(fastdllm_request_done(request));
  CHECK(result_of(request).num_tokens == 128);
  fastdllm_request_free(request);
}

/* --- threads ------------------------------------------------------------------------------- */

static void* ask_many(void* user_data) {
  const int64_t length = *(const int64_t*)user_data;
  for (int i = 0; i < 50; ++i) {
    const fastdllm_config config = small_config(length + i % 3);
    fastdllm_request* request = NULL;
    CHECK(fastdllm_engine_generate(engine, NULL, 0, &config, NULL, &request) == FASTDLLM_OK);
    const fastdllm_result result = result_of(request);
    CHECK(result.num_tokens == length + i % 3);
    for (int64_t k = 0; k < result.num_tokens; ++k) CHECK(result.token_ids[k] == k % 10);
    fastdllm_request_free(request);
  }
  return NULL;
}

static void say_done_late(void* user_data) {
  const struct timespec a_while = {0, 2000000};
  nanosleep(&a_while, NULL);
  *(int*)user_data = 1;
}

static void test_a_waiting_call_returns_after_done(void) {
  for (int i = 0; i < 5; ++i) {
    int done = 0;
    fastdllm_callbacks callbacks = calling(NULL, &done);
    callbacks.on_done = say_done_late;
    const fastdllm_config config = small_config(3);
    fastdllm_request* request = NULL;
    CHECK(fastdllm_engine_generate(engine, NULL, 0, &config, &callbacks, &request) == FASTDLLM_OK);
    CHECK(done == 1);
    fastdllm_request_free(request);

    done = 0;
    CHECK(fastdllm_engine_submit(engine, NULL, 0, &config, &callbacks, &request) == FASTDLLM_OK);
    CHECK(i % 2 == 0 ? result_of(request).num_tokens == 3
                     : fastdllm_request_wait_for(request, 60000));
    CHECK(done == 1);
    fastdllm_request_free(request);
  }
}

static void test_two_threads_share_an_engine(void) {
  int64_t lengths[] = {5, 17};
  pthread_t other;
  CHECK(pthread_create(&other, NULL, ask_many, &lengths[1]) == 0);
  ask_many(&lengths[0]);
  pthread_join(other, NULL);
}

static void* read_result(void* user_data) {
  fastdllm_result result;
  CHECK(fastdllm_request_result(user_data, &result, sizeof result) == FASTDLLM_OK);
  return (void*)result.token_ids;
}

static void test_two_threads_wait_for_one_request(void) {
  for (int i = 0; i < 50; ++i) {
    const fastdllm_config config = small_config(6);
    fastdllm_request* request = NULL;
    CHECK(fastdllm_engine_submit(engine, NULL, 0, &config, NULL, &request) == FASTDLLM_OK);
    pthread_t other;
    void* seen = NULL;
    CHECK(pthread_create(&other, NULL, read_result, request) == 0);
    void* own = read_result(request);
    pthread_join(other, &seen);
    CHECK(own != NULL && own == seen);
    fastdllm_request_free(request);
  }
}

int main(void) {
  engine = scripted_engine(NULL);
  test_the_events_are_the_answer();
  test_arrays_of_options_arrive();
  test_infill_fills_the_gaps();
  test_logits_and_facts();
  test_a_callback_ends_its_request();
  test_an_end_in_the_completing_pass_stays();
  test_another_thread_cancels_within_a_pass();
  test_one_cancelled_within_its_last_pass_keeps_its_end();
  test_too_many_are_refused_and_engines_may_go_first();
  test_a_callback_must_not_wait_for_the_engine();
  test_done_is_called_once_the_answer_is_there();
  test_a_waiting_call_returns_after_done();
  test_two_threads_share_an_engine();
  test_two_threads_wait_for_one_request();
  fastdllm_engine_free(engine);
  return failures == 0 ? 0 : 1;
}
