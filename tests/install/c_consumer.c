/* Generates from the package that FASTDLLM_TEST_PACKAGE names; 77 = skipped, there is none. */
#include <fastdllm/fastdllm.h>
#include <fastdllm/version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
  if (strcmp(fastdllm_version(), FASTDLLM_VERSION) != 0) return 1;
  const char* package = getenv("FASTDLLM_TEST_PACKAGE");
  if (package == NULL) {
    puts("skipped: FASTDLLM_TEST_PACKAGE names no package");
    return 77;
  }
  fastdllm_config config;
  fastdllm_config_default(&config, sizeof config);
  config.max_new_tokens = 40;
  config.threshold = 0.9;
  config.ignore_eos = 1;
  const int32_t prompt[] = {1, 2, 3};

  fastdllm_engine* engine = NULL;
  fastdllm_request* request = NULL;
  fastdllm_result result;
  fastdllm_engine_open(package, NULL, &engine);
  fastdllm_engine_generate(engine, prompt, 3, &config, NULL, &request);
  const fastdllm_status status = fastdllm_request_result(request, &result, sizeof result);
  if (status == FASTDLLM_OK) {
    printf("%d tokens in %d passes\n", (int)result.num_tokens, (int)result.num_passes);
  } else {
    fprintf(stderr, "c_consumer: %s\n", fastdllm_request_error(request));
  }
  const int code = status == FASTDLLM_OK && result.num_tokens == 40 ? 0 : 1;
  fastdllm_request_free(request);
  fastdllm_engine_free(engine);
  return code;
}
