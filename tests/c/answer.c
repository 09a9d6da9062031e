/* Says the token ids of an answer: answer_c PACKAGE PROMPT MAX_NEW_TOKENS THRESHOLD TEMPERATURE SEED */
#include <fastdllm/fastdllm_text.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  fastdllm_config config;
  fastdllm_config_default(&config, sizeof config);
  config.max_new_tokens = strtoll(argv[3], NULL, 10);
  config.threshold = strtod(argv[4], NULL);
  config.temperature = strtod(argv[5], NULL);
  config.seed = strtoull(argv[6], NULL, 10);

  fastdllm_llm* llm = NULL;
  fastdllm_request* request = NULL;
  fastdllm_result result;
  fastdllm_llm_open(argv[1], NULL, &llm);
  fastdllm_llm_generate(llm, argv[2], &config, NULL, &request);
  const fastdllm_status status = fastdllm_request_result(request, &result, sizeof result);
  if (status != FASTDLLM_OK) fprintf(stderr, "%s\n", fastdllm_request_error(request));
  for (int64_t i = 0; i < result.num_tokens; ++i) printf("%" PRId32 "\n", result.token_ids[i]);
  fastdllm_request_free(request);
  fastdllm_llm_free(llm);
  return status == FASTDLLM_OK ? 0 : 1;
}
