/* Text in C, on the package that FASTDLLM_TEST_PACKAGE names; 77 = skipped, there is none. */
#include <fastdllm/fastdllm_text.h>
#include <stdlib.h>

#include "check.h"

static const char question[] =
    "Tom has 3 boxes of 4 apples and gives 5 away. How many apples are left?";

/* --- codec --------------------------------------------------------------------------------- */

static void test_text_becomes_ids_and_text_again(const fastdllm_codec* codec) {
  fastdllm_output *ids = NULL, *text = NULL;
  CHECK(fastdllm_codec_encode(codec, question, FASTDLLM_NONE, &ids) == FASTDLLM_OK);
  const int64_t count = fastdllm_output_size(ids);
  CHECK(count > 5 && fastdllm_output_text(ids) == NULL);
  CHECK(fastdllm_codec_decode(codec, fastdllm_output_ids(ids), count, true, &text) == FASTDLLM_OK);
  CHECK_TEXT(fastdllm_output_text(text), question);
  CHECK(fastdllm_output_size(text) == (int64_t)strlen(question));
  fastdllm_output_free(text);
  fastdllm_output_free(ids);

  CHECK(fastdllm_codec_encode(codec, "a\0b", 3, &ids) == FASTDLLM_OK);
  CHECK(fastdllm_codec_decode(codec, fastdllm_output_ids(ids), fastdllm_output_size(ids), true,
                              &text) == FASTDLLM_OK);
  CHECK(fastdllm_output_size(text) == 3 && memcmp(fastdllm_output_text(text), "a\0b", 4) == 0);
  fastdllm_output_free(text);
  fastdllm_output_free(ids);
}

static void test_what_a_codec_refuses(const fastdllm_codec* codec) {
  fastdllm_output* output = NULL;
  CHECK(fastdllm_codec_encode(codec, NULL, FASTDLLM_NONE, &output) == FASTDLLM_NULL_ARGUMENT);
  CHECK_TEXT(fastdllm_output_error(output), "text is NULL");
  fastdllm_output_free(output);
  CHECK(fastdllm_codec_encode(codec, "text", -2, &output) == FASTDLLM_BAD_CONFIG);
  fastdllm_output_free(output);
  CHECK(fastdllm_codec_decode(codec, NULL, 2, true, &output) == FASTDLLM_NULL_ARGUMENT);
  fastdllm_output_free(output);
  CHECK(fastdllm_codec_encode(NULL, "text", 4, &output) == FASTDLLM_NULL_ARGUMENT);
  fastdllm_output_free(output);
  const fastdllm_message unknown[] = {{"cook", "Hello"}};
  CHECK(fastdllm_codec_render_chat(codec, unknown, 1, &output) == FASTDLLM_BAD_CONFIG);
  CHECK(strlen(fastdllm_output_error(output)) > 10);
  fastdllm_output_free(output);
  const fastdllm_message empty[] = {{"user", NULL}};
  CHECK(fastdllm_codec_encode_chat(codec, empty, 1, &output) == FASTDLLM_NULL_ARGUMENT);
  fastdllm_output_free(output);
  CHECK(fastdllm_codec_token_id(codec, "no such token at all") == FASTDLLM_NONE);
  CHECK(fastdllm_codec_token_id(codec, NULL) == FASTDLLM_NONE);
  CHECK(fastdllm_codec_token_id(NULL, "a") == FASTDLLM_NONE);
  CHECK(!fastdllm_codec_has_chat(NULL));

  fastdllm_codec* missing = NULL;
  CHECK(fastdllm_codec_open("/nowhere/at/all", &missing) == FASTDLLM_BAD_PACKAGE);
  CHECK_HOLDS(fastdllm_codec_error(missing), "/nowhere/at/all");
  CHECK(fastdllm_codec_encode(missing, "text", 4, &output) == FASTDLLM_BAD_PACKAGE);
  CHECK_HOLDS(fastdllm_output_error(output), "the codec did not open: ");
  fastdllm_output_free(output);
  fastdllm_codec_free(missing);
  fastdllm_codec_free(NULL);
}

static void test_a_stream_gives_pieces_up_to_a_stop_string(const char* package) {
  fastdllm_codec* codec = NULL;
  fastdllm_output* ids = NULL;
  fastdllm_text_stream* stream = NULL;
  const char* const stop[] = {"left"};
  const char* const none[] = {""};
  CHECK(fastdllm_codec_open(package, &codec) == FASTDLLM_OK);
  CHECK(fastdllm_codec_encode(codec, question, FASTDLLM_NONE, &ids) == FASTDLLM_OK);
  CHECK(fastdllm_text_stream_open(codec, NULL, 0, none, 1, &stream) == FASTDLLM_BAD_CONFIG);
  CHECK(strlen(fastdllm_text_stream_error(stream)) > 5);
  fastdllm_text_stream_free(stream);
  CHECK(fastdllm_text_stream_open(codec, NULL, 0, stop, 1, &stream) == FASTDLLM_OK);
  fastdllm_codec_free(codec); /* the stream keeps what it needs */

  char text[200] = "";
  const char* piece = NULL;
  for (int32_t i = 0; i < (int32_t)fastdllm_output_size(ids); ++i) {
    CHECK(fastdllm_text_stream_push(stream, &i, &fastdllm_output_ids(ids)[i], 1, &piece) ==
          FASTDLLM_OK);
    strcat(text, piece);
  }
  CHECK(fastdllm_text_stream_finish(stream, &piece) == FASTDLLM_OK);
  strcat(text, piece);
  CHECK_TEXT(text, "Tom has 3 boxes of 4 apples and gives 5 away. How many apples are ");
  int64_t num_bytes = 0;
  CHECK_TEXT(fastdllm_text_stream_text(stream, &num_bytes), text);
  CHECK(num_bytes == (int64_t)strlen(text));
  CHECK_TEXT(fastdllm_text_stream_stop(stream), "left");
  CHECK(fastdllm_text_stream_push(stream, NULL, NULL, 1, &piece) == FASTDLLM_NULL_ARGUMENT);
  CHECK_TEXT(piece, "");
  CHECK(fastdllm_text_stream_finish(NULL, &piece) == FASTDLLM_NULL_ARGUMENT);
  CHECK(fastdllm_text_stream_stop(NULL) == NULL);
  fastdllm_text_stream_free(stream);
  fastdllm_text_stream_free(NULL);
  fastdllm_output_free(ids);
}

/* --- llm ----------------------------------------------------------------------------------- */

typedef struct heard {
  char text[2000];
  int64_t events, at_most;
} heard;

static bool hear(const fastdllm_text_event* event, void* user_data) {
  heard* h = user_data;
  strcat(h->text, event->piece);
  CHECK_TEXT(event->text, h->text);
  CHECK(event->struct_size == sizeof *event && event->commit->struct_size > 0);
  CHECK(event->num_piece_bytes == (int64_t)strlen(event->piece));
  return ++h->events < h->at_most;
}

static fastdllm_text_options hearing(heard* h) {
  fastdllm_text_options options;
  CHECK(fastdllm_text_options_default(&options, sizeof options) == FASTDLLM_OK);
  options.on_text = hear;
  options.user_data = h;
  return options;
}

static fastdllm_completion completion_of(fastdllm_request* request) {
  fastdllm_completion completion;
  CHECK(fastdllm_request_completion(request, &completion, sizeof completion) == FASTDLLM_OK);
  return completion;
}

static void test_an_answer_is_the_sum_of_its_pieces(fastdllm_llm* llm) {
  heard h = {.at_most = 1000};
  const fastdllm_text_options options = hearing(&h);
  fastdllm_request *asked = NULL, *chatted = NULL;
  fastdllm_result result;
  CHECK(fastdllm_llm_generate(llm, question, NULL, &options, &asked) == FASTDLLM_OK);
  const fastdllm_completion completion = completion_of(asked);
  CHECK(fastdllm_request_result(asked, &result, sizeof result) == FASTDLLM_OK);
  CHECK_TEXT(completion.text, h.text);
  CHECK_HOLDS(completion.text, "7");
  CHECK(completion.stop == NULL && result.finish_reason == FASTDLLM_FINISH_STOP);
  CHECK(completion.completion_tokens == result.num_tokens && completion.prompt_tokens > 5);

  const fastdllm_message messages[] = {{"user", question}};
  CHECK(fastdllm_llm_chat(llm, messages, 1, NULL, NULL, &chatted) == FASTDLLM_OK);
  CHECK_TEXT(completion_of(chatted).text, completion.text);
  fastdllm_request_free(chatted);
  fastdllm_request_free(asked);
}

static void test_stop_strings_and_callbacks_end_an_answer(fastdllm_llm* llm) {
  const char* const stop[] = {"####"};
  heard h = {.at_most = 1000}, once = {.at_most = 1};
  fastdllm_text_options options = hearing(&h);
  options.stop = stop;
  options.num_stop = 1;
  fastdllm_request* request = NULL;
  fastdllm_result result;
  CHECK(fastdllm_llm_generate(llm, question, NULL, &options, &request) == FASTDLLM_OK);
  CHECK_TEXT(completion_of(request).stop, "####");
  CHECK_TEXT(completion_of(request).text, h.text);
  CHECK(strstr(h.text, "####") == NULL);
  fastdllm_request_free(request);

  options = hearing(&once);
  fastdllm_config config;
  CHECK(fastdllm_config_default(&config, sizeof config) == FASTDLLM_OK);
  config.block_length = 8; /* one token per pass: the first pass is not the last one */
  CHECK(fastdllm_llm_submit(llm, question, &config, &options, &request) == FASTDLLM_OK);
  CHECK(fastdllm_request_result(request, &result, sizeof result) == FASTDLLM_OK);
  CHECK(result.finish_reason == FASTDLLM_FINISH_ABORT && once.events == 1);
  fastdllm_request_free(request);
}

static void test_what_an_llm_refuses(fastdllm_llm* llm, const char* package) {
  fastdllm_request* request = NULL;
  fastdllm_completion completion;
  const fastdllm_message messages[] = {{NULL, "Hello"}};
  CHECK(fastdllm_llm_generate(llm, NULL, NULL, NULL, &request) == FASTDLLM_NULL_ARGUMENT);
  CHECK_TEXT(fastdllm_request_error(request), "prompt is NULL");
  CHECK(fastdllm_request_completion(request, &completion, sizeof completion) ==
        FASTDLLM_NULL_ARGUMENT);
  CHECK(completion.text == NULL);
  fastdllm_request_free(request);
  CHECK(fastdllm_llm_submit_chat(llm, messages, 1, NULL, NULL, &request) == FASTDLLM_NULL_ARGUMENT);
  fastdllm_request_free(request);
  CHECK(fastdllm_llm_chat(NULL, messages, 1, NULL, NULL, &request) == FASTDLLM_NULL_ARGUMENT);
  fastdllm_request_free(request);
  fastdllm_text_options options;
  memset(&options, 0, sizeof options);
  CHECK(fastdllm_llm_submit(llm, question, NULL, &options, &request) == FASTDLLM_BAD_STRUCT);
  CHECK_HOLDS(fastdllm_request_error(request), "fastdllm_text_options.struct_size is 0");
  fastdllm_request_free(request);

  const int32_t ids[] = {1};
  CHECK(fastdllm_engine_submit(fastdllm_llm_engine(llm), ids, 1, NULL, NULL, &request) ==
        FASTDLLM_OK);
  memset(&completion, 1, sizeof completion);
  CHECK(fastdllm_request_completion(request, &completion, sizeof completion) ==
        FASTDLLM_BAD_CONFIG);
  CHECK(completion.struct_size == sizeof completion && completion.text == NULL);
  fastdllm_request_cancel(request);
  fastdllm_request_free(request);

  fastdllm_llm* none = NULL;
  CHECK(fastdllm_llm_open("/nowhere", NULL, &none) == FASTDLLM_BAD_PACKAGE);
  CHECK(fastdllm_llm_engine(none) == NULL && strlen(fastdllm_llm_error(none)) > 5);
  CHECK(fastdllm_llm_generate(none, question, NULL, NULL, &request) == FASTDLLM_BAD_PACKAGE);
  CHECK_HOLDS(fastdllm_request_error(request), "the llm did not open: ");
  fastdllm_request_free(request);
  fastdllm_llm_free(none);
  fastdllm_llm_free(NULL);
  CHECK(fastdllm_llm_open(package, NULL, NULL) == FASTDLLM_NULL_ARGUMENT);
}

static void test_a_request_outlives_its_llm(const char* package) {
  fastdllm_llm* llm = NULL;
  fastdllm_request* request = NULL;
  fastdllm_output* ids = NULL;
  CHECK(fastdllm_llm_open(package, NULL, &llm) == FASTDLLM_OK);
  CHECK(fastdllm_llm_encode(llm, question, false, &ids) == FASTDLLM_OK);
  CHECK(fastdllm_output_size(ids) > 5);
  CHECK(fastdllm_llm_submit(llm, question, NULL, NULL, &request) == FASTDLLM_OK);
  fastdllm_llm_free(llm);
  CHECK(completion_of(request).prompt_tokens == fastdllm_output_size(ids));
  fastdllm_request_free(request);
  fastdllm_output_free(ids);
}

int main(void) {
  const char* package = getenv("FASTDLLM_TEST_PACKAGE");
  if (package == NULL) return puts("skipped: FASTDLLM_TEST_PACKAGE names no package"), 77;
  fastdllm_codec* codec = NULL;
  CHECK(fastdllm_codec_open(package, &codec) == FASTDLLM_OK);
  CHECK_TEXT(fastdllm_codec_error(codec), "");
  test_text_becomes_ids_and_text_again(codec);
  test_what_a_codec_refuses(codec);
  fastdllm_codec_free(codec);
  test_a_stream_gives_pieces_up_to_a_stop_string(package);
  fastdllm_llm* llm = NULL;
  CHECK(fastdllm_llm_open(package, NULL, &llm) == FASTDLLM_OK);
  test_an_answer_is_the_sum_of_its_pieces(llm);
  test_stop_strings_and_callbacks_end_an_answer(llm);
  test_what_an_llm_refuses(llm, package);
  fastdllm_llm_free(llm);
  test_a_request_outlives_its_llm(package);
  return failures == 0 ? 0 : 1;
}
