/* What a C program does wrong gives a status and a message, never a crash. */
#include <fastdllm/fastdllm.h>
#include <fastdllm/version.h>
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "scripted_engine.h"

static fastdllm_engine* engine;

static fastdllm_config defaults(void) {
  fastdllm_config config;
  CHECK(fastdllm_config_default(&config, sizeof config) == FASTDLLM_OK);
  return config;
}

/* The status and, by `message`, a part of the message of a generation; the handle holds both. */
static void check_refused(const fastdllm_config* config, fastdllm_status status,
                          const char* message) {
  const int32_t prompt[] = {1, 2};
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_generate(engine, prompt, 2, config, NULL, &request) == status);
  CHECK_HOLDS(fastdllm_request_error(request), message);
  fastdllm_result result;
  CHECK(fastdllm_request_result(request, &result, sizeof result) == status);
  CHECK(result.num_tokens == 0 && result.token_ids == NULL);
  CHECK(fastdllm_request_done(request));
  CHECK(fastdllm_request_wait_for(request, 1000));
  CHECK(fastdllm_request_cancel(request) == FASTDLLM_OK);
  fastdllm_request_free(request);
}

static void test_names(void) {
  CHECK_TEXT(fastdllm_status_name(FASTDLLM_OK), "ok");
  CHECK_TEXT(fastdllm_status_name(FASTDLLM_INTERNAL), "internal");
  CHECK_TEXT(fastdllm_status_name(-7), "unknown");
  CHECK_TEXT(fastdllm_cache_mode_name(FASTDLLM_CACHE_AUTO), "auto");
  CHECK_TEXT(fastdllm_cache_mode_name(99), "unknown");
  CHECK_TEXT(fastdllm_remasking_name(FASTDLLM_REMASKING_ORIGIN), "origin");
  CHECK_TEXT(fastdllm_stop_at_name(FASTDLLM_STOP_AT_BLOCK), "block");
  CHECK_TEXT(fastdllm_finish_reason_name(FASTDLLM_FINISH_ABORT), "abort");
  CHECK_TEXT(fastdllm_version(), FASTDLLM_VERSION);
}

static void test_defaults_are_those_of_cpp(void) {
  const fastdllm_config config = defaults();
  CHECK(config.struct_size == sizeof config);
  CHECK(config.max_new_tokens == 128);
  CHECK(config.block_length == FASTDLLM_NONE);
  CHECK(config.threshold == FASTDLLM_NONE);
  CHECK(config.cache == FASTDLLM_CACHE_AUTO);
  CHECK(config.top_p == 1.0);
  CHECK(config.num_logit_bias == 0 && config.logit_bias == NULL);
  CHECK(config.num_stop_token_ids == FASTDLLM_NONE);
  fastdllm_engine_options options;
  CHECK(fastdllm_engine_options_default(&options, sizeof options) == FASTDLLM_OK);
  CHECK(options.max_batch == 8 && options.max_waiting == 1024 && options.backend == NULL);
}

static void test_null_everywhere(void) {
  fastdllm_request* request = NULL;
  fastdllm_output* output = NULL;
  fastdllm_engine* opened = NULL;
  fastdllm_result result;
  fastdllm_package_info info;
  const int32_t ids[] = {1};
  CHECK(fastdllm_engine_open(NULL, NULL, &opened) == FASTDLLM_NULL_ARGUMENT);
  CHECK_TEXT(fastdllm_engine_error(opened), "package is NULL");
  fastdllm_engine_free(opened);
  CHECK(fastdllm_engine_open("package", NULL, NULL) == FASTDLLM_NULL_ARGUMENT);
  CHECK(fastdllm_engine_submit(NULL, ids, 1, NULL, NULL, &request) == FASTDLLM_NULL_ARGUMENT);
  CHECK_TEXT(fastdllm_request_error(request), "engine is NULL");
  fastdllm_request_free(request);
  CHECK(fastdllm_engine_generate(NULL, ids, 1, NULL, NULL, &request) == FASTDLLM_NULL_ARGUMENT);
  fastdllm_request_free(request);
  CHECK(fastdllm_engine_generate(engine, ids, 1, NULL, NULL, NULL) == FASTDLLM_NULL_ARGUMENT);
  CHECK(fastdllm_engine_infill(engine, NULL, 3, NULL, NULL, &request) == FASTDLLM_NULL_ARGUMENT);
  CHECK_TEXT(fastdllm_request_error(request), "ids is NULL; expected 3 of it");
  fastdllm_request_free(request);
  CHECK(fastdllm_engine_logits(engine, ids, 1, NULL, 1, FASTDLLM_NONE, &output) ==
        FASTDLLM_NULL_ARGUMENT);
  CHECK_TEXT(fastdllm_output_error(output), "positions is NULL; expected 1 of it");
  CHECK(fastdllm_output_ids(output) == NULL && fastdllm_output_text(output) == NULL);
  CHECK(fastdllm_output_logits(output) == NULL && fastdllm_output_size(output) == 0);
  fastdllm_output_free(output);
  CHECK(fastdllm_engine_package(NULL, &info, sizeof info) == FASTDLLM_NULL_ARGUMENT);
  CHECK(fastdllm_engine_package(engine, NULL, sizeof info) == FASTDLLM_NULL_ARGUMENT);
  CHECK(fastdllm_request_result(NULL, &result, sizeof result) == FASTDLLM_NULL_ARGUMENT);
  CHECK(fastdllm_request_cancel(NULL) == FASTDLLM_NULL_ARGUMENT);
  CHECK(fastdllm_config_default(NULL, sizeof(fastdllm_config)) == FASTDLLM_NULL_ARGUMENT);
  CHECK(fastdllm_request_done(NULL));
  CHECK_TEXT(fastdllm_engine_error(NULL), "");
  CHECK_TEXT(fastdllm_engine_backend(NULL), "");
  CHECK_TEXT(fastdllm_request_error(NULL), "");
  CHECK_TEXT(fastdllm_output_error(NULL), "");
  CHECK(fastdllm_output_size(NULL) == 0);
  fastdllm_engine_free(NULL);
  fastdllm_request_free(NULL);
  fastdllm_output_free(NULL);
}

static void test_an_engine_that_did_not_open_says_why_and_refuses_all(void) {
  fastdllm_engine* missing = NULL;
  fastdllm_request* request = NULL;
  fastdllm_output* output = NULL;
  fastdllm_package_info info;
  const int32_t ids[] = {1};
  CHECK(fastdllm_engine_open("/nowhere/at/all", NULL, &missing) == FASTDLLM_BAD_PACKAGE);
  CHECK_HOLDS(fastdllm_engine_error(missing), "/nowhere/at/all");
  CHECK(fastdllm_engine_generate(missing, ids, 1, NULL, NULL, &request) == FASTDLLM_BAD_PACKAGE);
  CHECK_HOLDS(fastdllm_request_error(request), "the engine did not open: ");
  CHECK(fastdllm_engine_logits(missing, ids, 1, ids, 1, FASTDLLM_NONE, &output) ==
        FASTDLLM_BAD_PACKAGE);
  CHECK(fastdllm_engine_package(missing, &info, sizeof info) == FASTDLLM_BAD_PACKAGE);
  CHECK_TEXT(fastdllm_engine_backend(missing), "");
  fastdllm_output_free(output);
  fastdllm_request_free(request);
  fastdllm_engine_free(missing);

  fastdllm_engine_options options;
  fastdllm_engine_options_default(&options, sizeof options);
  options.max_batch = 0;
  CHECK(fastdllm_engine_open("/nowhere", &options, &missing) == FASTDLLM_BAD_CONFIG);
  CHECK_TEXT(fastdllm_engine_error(missing), "max_batch is 0; expected at least 1");
  fastdllm_engine_free(missing);
  memset(&options, 0, sizeof options);
  CHECK(fastdllm_engine_open("/nowhere", &options, &missing) == FASTDLLM_BAD_STRUCT);
  CHECK_HOLDS(fastdllm_engine_error(missing), "fastdllm_engine_options.struct_size is 0;");
  fastdllm_engine_free(missing);
}

static void check_set(fastdllm_config* config, const char* name, const char* value,
                      fastdllm_status status, const char* text) {
  fastdllm_output* output = NULL;
  CHECK(fastdllm_config_set(config, name, value, &output) == status);
  CHECK_TEXT(status == FASTDLLM_OK ? fastdllm_output_text(output) : fastdllm_output_error(output),
             text);
  fastdllm_output_free(output);
}

static void test_options_by_name(void) {
  fastdllm_config config = defaults();
  check_set(&config, "frechet", "0.25", FASTDLLM_OK, "0.25");
  CHECK(config.frechet == 0.25);
  check_set(&config, "cache", "dual", FASTDLLM_OK, "dual");
  CHECK(config.cache == FASTDLLM_CACHE_DUAL);
  check_set(&config, "ignore_eos", "true", FASTDLLM_OK, "true");
  CHECK(config.ignore_eos == 1);
  check_set(&config, "frechet", "none", FASTDLLM_OK, "none");
  CHECK(config.frechet == FASTDLLM_NONE);
  check_set(&config, "treshold", "0.9", FASTDLLM_BAD_CONFIG,
            "'treshold' is no option of a generation; did you mean threshold?");
  check_set(&config, "threshold", "x", FASTDLLM_BAD_CONFIG,
            "threshold is 'x'; expected a number, or none");
  check_set(&config, "banned_token_ids", "1", FASTDLLM_BAD_CONFIG,
            "banned_token_ids is a list; expected its fields of fastdllm_config to be set");
  check_set(&config, NULL, "1", FASTDLLM_NULL_ARGUMENT, "name is NULL");
  check_set(&config, "seed", NULL, FASTDLLM_NULL_ARGUMENT, "value is NULL");
  check_set(NULL, "seed", "1", FASTDLLM_NULL_ARGUMENT, "config is NULL");
  config.struct_size = offsetof(fastdllm_config, stop_at);
  check_set(&config, "ignore_eos", "false", FASTDLLM_BAD_CONFIG,
            "fastdllm_config is of an older version, which has no ignore_eos");
  CHECK(config.ignore_eos == 1);

  const int32_t banned[] = {3, 5};
  config = defaults();
  config.banned_token_ids = banned;
  config.num_banned_token_ids = 2;
  fastdllm_output* output = NULL;
  CHECK(fastdllm_config_get(&config, "banned_token_ids", &output) == FASTDLLM_OK);
  CHECK_TEXT(fastdllm_output_text(output), "3,5");
  fastdllm_output_free(output);
}

static void test_options_are_checked(void) {
  fastdllm_config config = defaults();
  config.threshold = 1.5;
  check_refused(&config, FASTDLLM_BAD_CONFIG, "threshold is 1.5; expected a number in (0, 1]");
  config.threshold = -0.5; /* only FASTDLLM_NONE is none */
  check_refused(&config, FASTDLLM_BAD_CONFIG, "threshold is -0.5; expected a number in (0, 1]");
  config.threshold = NAN;
  check_refused(&config, FASTDLLM_BAD_CONFIG, "threshold is ");
  config = defaults();
  config.block_length = 0;
  check_refused(&config, FASTDLLM_BAD_CONFIG, "block_length is 0; expected at least 1");
  config = defaults();
  config.cache = 4;
  check_refused(&config, FASTDLLM_BAD_CONFIG,
                "cache is 4; expected one of 0 (none), 1 (prefix), 2 (dual), 3 (auto)");
  config = defaults();
  config.remasking = -1;
  check_refused(&config, FASTDLLM_BAD_CONFIG,
                "remasking is -1; expected one of 0 (low_confidence), 1 (random), ");
  config = defaults();
  config.num_banned_token_ids = 2;
  check_refused(&config, FASTDLLM_NULL_ARGUMENT, "banned_token_ids is NULL; expected 2 of it");
  config = defaults();
  config.num_logit_bias = -2;
  check_refused(&config, FASTDLLM_BAD_CONFIG,
                "the number of logit_bias is -2; expected at least 0");
  config = defaults();
  config.num_stop_token_ids = 1;
  check_refused(&config, FASTDLLM_NULL_ARGUMENT, "stop_token_ids is NULL");
  config = defaults();
  config.max_new_tokens = INT64_MAX;
  check_refused(&config, FASTDLLM_BAD_CONFIG, "max_new_tokens");

  const int32_t beyond[] = {1, 16};
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_submit(engine, beyond, 2, NULL, NULL, &request) == FASTDLLM_BAD_CONFIG);
  CHECK_TEXT(fastdllm_request_error(request),
             "prompt id 16 at index 1 is outside the vocabulary [0, 16)");
  fastdllm_request_free(request);
  CHECK(fastdllm_engine_submit(engine, beyond, -1, NULL, NULL, &request) == FASTDLLM_BAD_CONFIG);
  CHECK_TEXT(fastdllm_request_error(request), "the number of ids is -1; expected at least 0");
  fastdllm_request_free(request);
}

static void test_struct_sizes_of_no_header_are_refused(void) {
  const size_t sizes[] = {0, 1, sizeof(size_t) - 1, sizeof(fastdllm_config) - 1, 1 << 20, SIZE_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    fastdllm_config config = defaults();
    config.struct_size = sizes[i];
    check_refused(&config, FASTDLLM_BAD_STRUCT, "fastdllm_config.struct_size is ");
    CHECK(fastdllm_config_default(&config, sizes[i]) == FASTDLLM_BAD_STRUCT);
    fastdllm_stats stats;
    CHECK(fastdllm_request_stats(NULL, &stats, sizes[i]) == FASTDLLM_BAD_STRUCT);
    fastdllm_package_info info;
    CHECK(fastdllm_engine_package(engine, &info, sizes[i]) == FASTDLLM_BAD_STRUCT);
  }
}

/* A program of an older header knows no field from stop_at on: they are neither read nor written.
 */
static void test_an_older_struct_works(void) {
  const size_t older = offsetof(fastdllm_config, stop_at);
  fastdllm_config config = defaults();
  config.struct_size = older;
  config.max_new_tokens = 5;
  void* cut = malloc(older); /* a sanitizer watches its end */
  memcpy(cut, &config, older);
  fastdllm_request* request = NULL;
  fastdllm_result result;
  CHECK(fastdllm_engine_generate(engine, NULL, 0, cut, NULL, &request) == FASTDLLM_OK);
  CHECK(fastdllm_request_result(request, &result, sizeof result) == FASTDLLM_OK);
  CHECK(result.num_tokens == 5);
  CHECK(fastdllm_config_default(cut, older) == FASTDLLM_OK);
  CHECK(*(size_t*)cut == older);
  free(cut);

  struct older_result {
    size_t struct_size;
    const int32_t* token_ids;
    const double* logprobs;
    int64_t num_tokens;
  }* old_result = malloc(sizeof *old_result);
  CHECK(fastdllm_request_result(request, (fastdllm_result*)old_result, sizeof *old_result) ==
        FASTDLLM_OK);
  CHECK(old_result->struct_size == sizeof *old_result && old_result->num_tokens == 5);
  free(old_result);
  fastdllm_request_free(request);
}

/* A newer program's fields are refused when it sets them, and zero when it reads them. */
static void test_a_newer_struct_works_as_far_as_it_is_known(void) {
  struct newer {
    fastdllm_config config;
    int64_t unknown;
    int64_t more;
  } newer;
  CHECK(fastdllm_config_default(&newer.config, sizeof newer) == FASTDLLM_OK);
  CHECK(newer.config.struct_size == sizeof newer && newer.unknown == 0 && newer.more == 0);
  newer.config.max_new_tokens = 3;
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_generate(engine, NULL, 0, &newer.config, NULL, &request) == FASTDLLM_OK);
  struct {
    fastdllm_result result;
    int64_t unknown;
  } answer = {.unknown = 7};
  CHECK(fastdllm_request_result(request, &answer.result, sizeof answer) == FASTDLLM_OK);
  CHECK(answer.result.num_tokens == 3 && answer.unknown == 0);
  fastdllm_request_free(request);
  newer.more = 1;
  check_refused(&newer.config, FASTDLLM_BAD_STRUCT, "fastdllm_config is of a newer version");
}

static void test_errors_of_a_run_belong_to_its_request(void) {
  fastdllm_engine* broken = broken_engine();
  fastdllm_request* request = NULL;
  CHECK(fastdllm_engine_submit(broken, NULL, 0, NULL, NULL, &request) == FASTDLLM_OK);
  fastdllm_stats stats;
  CHECK(fastdllm_request_stats(request, &stats, sizeof stats) == FASTDLLM_NUMERIC);
  CHECK(stats.rows_computed == 0);
  CHECK(strlen(fastdllm_request_error(request)) > 10);
  CHECK_TEXT(fastdllm_engine_error(broken), "");
  fastdllm_request_free(request);
  fastdllm_engine_free(broken);
}

static void test_an_answer_that_memory_cannot_hold_is_refused_by_name(void) {
  fastdllm_engine_options options;
  fastdllm_engine_options_default(&options, sizeof options);
  options.cache_bytes = 1000;
  fastdllm_engine* all = engine;
  engine = scripted_engine(&options);
  fastdllm_config config = defaults();
  config.max_new_tokens = 400;
  check_refused(&config, FASTDLLM_BAD_CONFIG,
                "max_new_tokens is 400 behind a prompt of 2 tokens: the request may need ");
  fastdllm_engine_free(engine);
  engine = all;
}

int main(void) {
  engine = scripted_engine(NULL);
  test_names();
  test_defaults_are_those_of_cpp();
  test_null_everywhere();
  test_an_engine_that_did_not_open_says_why_and_refuses_all();
  test_options_by_name();
  test_options_are_checked();
  test_struct_sizes_of_no_header_are_refused();
  test_an_older_struct_works();
  test_a_newer_struct_works_as_far_as_it_is_known();
  test_errors_of_a_run_belong_to_its_request();
  test_an_answer_that_memory_cannot_hold_is_refused_by_name();
  fastdllm_engine_free(engine);
  return failures == 0 ? 0 : 1;
}
