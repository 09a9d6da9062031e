/* Answers a prompt, in text, as it becomes final: embed_c PACKAGE PROMPT */
#include <fastdllm/fastdllm_text.h>
#include <stdio.h>

static bool print_piece(const fastdllm_text_event* event, void* user_data) {
  fputs(event->piece, user_data);
  return fflush(user_data) == 0; /* false would end the answer */
}

int main(int argc, char** argv) {
  if (argc != 3) return fputs("usage: embed_c PACKAGE PROMPT\n", stderr), 2;
  fastdllm_config config;
  fastdllm_config_default(&config, sizeof config);
  config.max_new_tokens = 64;
  config.threshold = 0.9;
  fastdllm_text_options options;
  fastdllm_text_options_default(&options, sizeof options);
  options.on_text = print_piece;
  options.user_data = stdout;

  fastdllm_llm* llm = NULL; /* one that did not open says why in all that is asked of it */
  fastdllm_request* request = NULL;
  fastdllm_llm_open(argv[1], NULL, &llm);
  const fastdllm_status status = fastdllm_llm_generate(llm, argv[2], &config, &options, &request);
  fprintf(status == FASTDLLM_OK ? stdout : stderr, "%s\n", fastdllm_request_error(request));
  fastdllm_request_free(request);
  fastdllm_llm_free(llm);
  return status == FASTDLLM_OK ? 0 : 1;
}
