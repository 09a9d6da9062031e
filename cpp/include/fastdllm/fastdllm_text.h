/* The C API for text, in the library fastdllm_text. The rules at the top of fastdllm.h hold here
 * too. tokenizer.hpp, text.hpp and llm.hpp describe the same functions in more detail. */
#ifndef FASTDLLM_FASTDLLM_TEXT_H
#define FASTDLLM_FASTDLLM_TEXT_H

#include "fastdllm/fastdllm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* role: "system", "user" or "assistant", as far as the chat format has them. */
typedef struct fastdllm_message {
  const char* role;
  const char* content;
} fastdllm_message;

/* --- text to token ids and back ------------------------------------------------------------ */

typedef struct fastdllm_codec fastdllm_codec;

/* Reads a package's tokenizer and chat format. A codec is immutable and thread-safe. */
FASTDLLM_API fastdllm_status fastdllm_codec_open(const char* package, fastdllm_codec** codec);
FASTDLLM_API void fastdllm_codec_free(fastdllm_codec* codec);
FASTDLLM_API const char* fastdllm_codec_error(const fastdllm_codec* codec);
/* Whether the package has a chat template. */
FASTDLLM_API bool fastdllm_codec_has_chat(const fastdllm_codec* codec);
/* The id of a whole token, special ones included, or FASTDLLM_NONE. */
FASTDLLM_API int32_t fastdllm_codec_token_id(const fastdllm_codec* codec, const char* token);

/* Token ids of text as it stands. num_bytes: FASTDLLM_NONE = up to its NUL. */
FASTDLLM_API fastdllm_status fastdllm_codec_encode(const fastdllm_codec* codec, const char* text,
                                                   int64_t num_bytes, fastdllm_output** output);
/* Token ids of a chat in the model's format, ending with the header of the assistant's answer. */
FASTDLLM_API fastdllm_status fastdllm_codec_encode_chat(const fastdllm_codec* codec,
                                                        const fastdllm_message* messages,
                                                        int64_t num_messages,
                                                        fastdllm_output** output);
/* The same as text. */
FASTDLLM_API fastdllm_status fastdllm_codec_render_chat(const fastdllm_codec* codec,
                                                        const fastdllm_message* messages,
                                                        int64_t num_messages,
                                                        fastdllm_output** output);
/* Text of token ids; special tokens are dropped, or written out. */
FASTDLLM_API fastdllm_status fastdllm_codec_decode(const fastdllm_codec* codec, const int32_t* ids,
                                                   int64_t num_ids, bool skip_special_tokens,
                                                   fastdllm_output** output);

/* --- text that becomes final from left to right -------------------------------------------- */

typedef struct fastdllm_text_stream fastdllm_text_stream;

/* stop_ids: tokens that end the text. stop: strings, none empty, before which it ends. The codec
 * may be freed before the stream. One thread at a time. */
FASTDLLM_API fastdllm_status fastdllm_text_stream_open(const fastdllm_codec* codec,
                                                       const int32_t* stop_ids,
                                                       int64_t num_stop_ids,
                                                       const char* const* stop, int64_t num_stop,
                                                       fastdllm_text_stream** stream);
FASTDLLM_API void fastdllm_text_stream_free(fastdllm_text_stream* stream);
/* Of the first call that failed. */
FASTDLLM_API const char* fastdllm_text_stream_error(const fastdllm_text_stream* stream);
/* One pass's commits; piece: the text that is now final, often "". Valid until the next call. */
FASTDLLM_API fastdllm_status fastdllm_text_stream_push(fastdllm_text_stream* stream,
                                                       const int32_t* positions,
                                                       const int32_t* token_ids, int64_t count,
                                                       const char** piece);
/* Returns the text that was held back; an incomplete character becomes U+FFFD. */
FASTDLLM_API fastdllm_status fastdllm_text_stream_finish(fastdllm_text_stream* stream,
                                                         const char** piece);
/* All text that push and finish returned so far. num_bytes: receives its length, for text that may
 * contain a NUL; may be NULL. */
FASTDLLM_API const char* fastdllm_text_stream_text(const fastdllm_text_stream* stream,
                                                   int64_t* num_bytes);
/* The stop string that ended it, or NULL. */
FASTDLLM_API const char* fastdllm_text_stream_stop(const fastdllm_text_stream* stream);

/* --- a package that answers prompts and chats ---------------------------------------------- */

/* An engine together with the package's tokenizer and chat format. Thread-safe.
 * @code
 * fastdllm_llm_open(argv[1], NULL, &llm);
 * const fastdllm_status status = fastdllm_llm_generate(llm, argv[2], &config, &options, &request);
 * ...
 * fastdllm_request_free(request);
 * fastdllm_llm_free(llm);
 * @endcode */
typedef struct fastdllm_llm fastdllm_llm;

FASTDLLM_API fastdllm_status fastdllm_llm_open(const char* package,
                                               const fastdllm_engine_options* options,
                                               fastdllm_llm** llm);
/* Ends all requests with FASTDLLM_FINISH_ABORT. The handles of requests stay valid. */
FASTDLLM_API void fastdllm_llm_free(fastdllm_llm* llm);
FASTDLLM_API const char* fastdllm_llm_error(const fastdllm_llm* llm);
/* Its engine, for facts, token ids and logits. Belongs to the llm: not to be freed. */
FASTDLLM_API fastdllm_engine* fastdllm_llm_engine(fastdllm_llm* llm);

/* What one pass added to an answer. Borrowed, valid only during the callback. All pieces together
 * are the text. If text was held back until the end, one more event follows whose commit has no
 * positions. */
typedef struct fastdllm_text_event {
  size_t struct_size;
  const fastdllm_commit_event* commit;
  const char* piece; /* the text that became final with this pass, often "" */
  int64_t num_piece_bytes;
  const char* text; /* all final text */
  int64_t num_text_bytes;
} fastdllm_text_event;

/* As fastdllm_commit_callback. */
typedef bool (*fastdllm_text_callback)(const fastdllm_text_event* event, void* user_data);

/* Of one request, beside its fastdllm_config. */
typedef struct fastdllm_text_options {
  size_t struct_size;
  const char* const* stop; /* strings, none empty, before which the text ends */
  int64_t num_stop;
  fastdllm_text_callback on_text; /* or NULL */
  fastdllm_done_callback on_done; /* or NULL */
  void* user_data;                /* lives as long as that of fastdllm_callbacks */
  int64_t raw;                    /* 1: use the prompt as it is, without the chat format */
} fastdllm_text_options;

FASTDLLM_API fastdllm_status fastdllm_text_options_default(fastdllm_text_options* options,
                                                           size_t size);

/* If the package has a chat format, the prompt is sent as one user message. generate and chat wait
 * for the end and return the request's status; submit and submit_chat return at once. config: NULL
 * = threshold 0.9 and the other defaults. (The defaults alone decode one token per pass.) */
FASTDLLM_API fastdllm_status fastdllm_llm_generate(fastdllm_llm* llm, const char* prompt,
                                                   const fastdllm_config* config,
                                                   const fastdllm_text_options* options,
                                                   fastdllm_request** request);
FASTDLLM_API fastdllm_status fastdllm_llm_chat(fastdllm_llm* llm, const fastdllm_message* messages,
                                               int64_t num_messages, const fastdllm_config* config,
                                               const fastdllm_text_options* options,
                                               fastdllm_request** request);
FASTDLLM_API fastdllm_status fastdllm_llm_submit(fastdllm_llm* llm, const char* prompt,
                                                 const fastdllm_config* config,
                                                 const fastdllm_text_options* options,
                                                 fastdllm_request** request);
FASTDLLM_API fastdllm_status fastdllm_llm_submit_chat(fastdllm_llm* llm,
                                                      const fastdllm_message* messages,
                                                      int64_t num_messages,
                                                      const fastdllm_config* config,
                                                      const fastdllm_text_options* options,
                                                      fastdllm_request** request);
/* The token ids that generate would use for this prompt. */
FASTDLLM_API fastdllm_status fastdllm_llm_encode(const fastdllm_llm* llm, const char* prompt,
                                                 bool raw, fastdllm_output** output);

/* The text of an answer, in addition to fastdllm_result. */
typedef struct fastdllm_completion {
  size_t struct_size;
  const char* text; /* without special tokens; ends with a NUL that does not count */
  int64_t num_text_bytes;
  const char* stop; /* the stop string that ended it, or NULL */
  int64_t prompt_tokens;
  int64_t completion_tokens; /* the stop string or end-of-text token included */
} fastdllm_completion;

/* Waits, as fastdllm_request_result. Token ids and the reason of its end are there. For a
 * request of token ids all is zero and the status is FASTDLLM_BAD_CONFIG. */
FASTDLLM_API fastdllm_status fastdllm_request_completion(fastdllm_request* request,
                                                         fastdllm_completion* completion,
                                                         size_t size);

#ifdef __cplusplus
}
#endif

#endif
