/* The C API for token ids. Names and meanings are those of C++: generation.hpp, engine.hpp and
 * package.hpp describe them in more detail. fastdllm_text.h adds text.
 *
 * Handles. A function that makes a handle stores it through its last parameter, also when it fails:
 * the handle then holds only the error's message. The stored handle is NULL only when there was no
 * memory for it or an argument was NULL. Free every handle with its own function, which accepts
 * NULL. Free nothing else: a pointer that a function returns belongs to the handle that was passed
 * to it, and is valid until that handle is freed.
 *
 * Errors. Functions return a status; FASTDLLM_OK is 0. The error's message says where the problem
 * is, what was expected and what was found. No C++ exception leaves a function; the library never
 * prints or aborts. A NULL argument that must not be NULL gives FASTDLLM_NULL_ARGUMENT; functions
 * that return no status then return "" or NULL.
 *
 * Structs begin with struct_size and may grow at their end in later versions. Pass the size to the
 * function that fills a struct: fastdllm_config_default(&config, sizeof config). A program compiled
 * with an older header works with a newer library. A library refuses fields that it does not know,
 * from a newer header, unless they are zero. Structs in arrays never grow. NULL for a struct of
 * options means the defaults.
 *
 * Threads. An engine may be used from many threads at once. The message of a handle never changes
 * once it is set, so every thread may read it. Later errors are in the handle of their request or
 * output.
 *
 * Text is UTF-8. Numbers of elements are int64_t. Flags in structs are integers, 0 or not;
 * functions take and give bool. */
#ifndef FASTDLLM_FASTDLLM_H
#define FASTDLLM_FASTDLLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fastdllm/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An option, number or count that is not given. */
enum { FASTDLLM_NONE = -1 };

typedef int32_t fastdllm_status;
enum {
  FASTDLLM_OK = 0,
  FASTDLLM_BAD_PACKAGE = 1, /* the package folder is missing, damaged or from the future */
  FASTDLLM_BAD_CONFIG = 2,  /* an option or a prompt that cannot be honoured */
  FASTDLLM_BACKEND = 3,     /* the inference library is missing, too old, or failed in a run */
  FASTDLLM_OVERLOADED = 4,  /* too many requests are waiting: try again later */
  FASTDLLM_NUMERIC = 5,     /* the model answered with something that is no probability */
  FASTDLLM_NULL_ARGUMENT = 100,
  FASTDLLM_BAD_STRUCT = 101, /* a struct_size of no header, or a field from a newer one */
  FASTDLLM_NOT_DONE = 102,   /* the request is under way, and this thread must not wait for it */
  FASTDLLM_OUT_OF_MEMORY = 103,
  FASTDLLM_INTERNAL = 104 /* an error that the library does not expect */
};

typedef int32_t fastdllm_cache_mode;
enum {
  FASTDLLM_CACHE_NONE = 0,   /* every pass recomputes everything */
  FASTDLLM_CACHE_PREFIX = 1, /* rows before the block are cached */
  FASTDLLM_CACHE_DUAL = 2,   /* rows around the block are cached */
  FASTDLLM_CACHE_AUTO = 3    /* the engine chooses */
};

/* What ranks the masked positions of a block. */
typedef int32_t fastdllm_remasking;
enum {
  FASTDLLM_REMASKING_LOW_CONFIDENCE = 0,
  FASTDLLM_REMASKING_RANDOM = 1,
  FASTDLLM_REMASKING_MARGIN = 2,
  FASTDLLM_REMASKING_ENTROPY = 3,
  FASTDLLM_REMASKING_SEQUENTIAL = 4,
  FASTDLLM_REMASKING_ORIGIN = 5
};

/* Where an answer that holds a stop token ends. */
typedef int32_t fastdllm_stop_at;
enum { FASTDLLM_STOP_AT_TOKEN = 0, FASTDLLM_STOP_AT_BLOCK = 1 };

typedef int32_t fastdllm_finish_reason;
enum {
  FASTDLLM_FINISH_STOP = 0,   /* a stop token, with every position before it filled */
  FASTDLLM_FINISH_LENGTH = 1, /* max_new_tokens */
  FASTDLLM_FINISH_ABORT = 2   /* the callback asked for it, or cancelled, or the engine was freed */
};

/* "ok", "bad_package", "auto", "low_confidence", ...; "unknown" for another number. Static. */
FASTDLLM_API const char* fastdllm_status_name(fastdllm_status status);
FASTDLLM_API const char* fastdllm_cache_mode_name(fastdllm_cache_mode mode);
FASTDLLM_API const char* fastdllm_remasking_name(fastdllm_remasking remasking);
FASTDLLM_API const char* fastdllm_stop_at_name(fastdllm_stop_at stop_at);
FASTDLLM_API const char* fastdllm_finish_reason_name(fastdllm_finish_reason reason);

/* The library's version, "0.2.0". Static. */
FASTDLLM_API const char* fastdllm_version(void);

/* --- options ------------------------------------------------------------------------------- */

typedef struct fastdllm_logit_bias {
  int32_t token_id;
  double bias; /* in [-1e6, 1e6] */
} fastdllm_logit_bias;

/* Options of one generation. Optional ones are FASTDLLM_NONE where they are not given. Arrays are
 * borrowed until the function that takes the struct returns. */
typedef struct fastdllm_config {
  size_t struct_size;
  int64_t max_new_tokens;   /* >= 1 */
  int64_t block_length;     /* >= 1; none = the package's, or 32 */
  int64_t sub_block_length; /* >= 1, block-causal only; none = the package's, or the block */
  int64_t steps;            /* in [1, 2^20]; none = one token per pass */
  int64_t steps_per_block;  /* in [1, 2^20], instead of steps; or none */
  double eps;               /* in (0, 1), or none */
  double threshold;         /* in (0, 1]: commit all positions this confident; or none */
  double threshold_decay;   /* in [0, 1] */
  double factor;            /* > 0, or none */
  double frechet;           /* in [0, 1), or none */
  double entropy_bound;     /* >= 0, nats; or none */
  fastdllm_cache_mode cache;
  int64_t suffix_window;    /* >= 0, or none */
  int64_t refresh_interval; /* >= 1, or none */
  int64_t deferred_window;  /* >= 1, or none */
  int64_t refresh_tokens;   /* >= 1, or none */
  fastdllm_remasking remasking;
  double temperature; /* >= 0; 0 = arg-max */
  double top_p;       /* in (0, 1] */
  int64_t top_k;      /* >= 0; 0 = all */
  double min_p;       /* in [0, 1) */
  const fastdllm_logit_bias* logit_bias;
  int64_t num_logit_bias;
  const int32_t* banned_token_ids;
  int64_t num_banned_token_ids;
  double alg_temp;  /* >= 0 */
  double cfg_scale; /* >= 0; 0 = no guidance */
  uint64_t seed;
  double editing_threshold; /* in [0, 1], or none */
  int64_t max_post_steps;   /* in [0, 2^20] */
  const int32_t* stop_token_ids;
  int64_t num_stop_token_ids; /* none = the package's; 0 = no token stops */
  fastdllm_stop_at stop_at;
  int32_t ignore_eos;
} fastdllm_config;

FASTDLLM_API fastdllm_status fastdllm_config_default(fastdllm_config* config, size_t size);

/* Options by name, as command lines have them. The value is text: "0.9", "dual", "true", or "none"
 * for an option that is not given; an unknown name is answered with the one that is near. Lists are
 * fields that point to memory of the caller: they can be read by name, not set. The output's text
 * is the option's value. Ranges are checked when a request is made. */
typedef struct fastdllm_output fastdllm_output;
FASTDLLM_API fastdllm_status fastdllm_config_set(fastdllm_config* config, const char* name,
                                                 const char* value, fastdllm_output** output);
FASTDLLM_API fastdllm_status fastdllm_config_get(const fastdllm_config* config, const char* name,
                                                 fastdllm_output** output);

/* How a package is opened. */
typedef struct fastdllm_engine_options {
  size_t struct_size;
  int32_t threads;     /* inside one run; 0 = as many as the backend finds sensible */
  int32_t cuda_graph;  /* TensorRT: steps whose shapes stay are replayed as a CUDA graph */
  int64_t max_batch;   /* >= 1: requests that are decoded side by side */
  int64_t max_waiting; /* >= 0: requests beyond these that wait for a place */
  int64_t cache_bytes; /* K/V of all requests, scores; 0 = half of the physical memory */
  const char* backend; /* "auto", "onnxruntime", "tensorrt"; NULL = "auto" */
  const char* device;  /* "cpu", "cuda" or "cuda:N"; NULL = "cpu" */
  /* Paths; NULL = the environment variable FASTDLLM_ONNXRUNTIME, FASTDLLM_TENSORRT or
   * FASTDLLM_CUDART, then the loader's search. A process holds one ONNX Runtime (1.24 or newer):
   * once it has one, NULL means that one, and another is refused. */
  const char* onnxruntime_library;
  const char* tensorrt_library;
  const char* cudart_library;
  const char* tensorrt_engine; /* NULL = the one for this GPU in PACKAGE.engines */
} fastdllm_engine_options;

FASTDLLM_API fastdllm_status fastdllm_engine_options_default(fastdllm_engine_options* options,
                                                             size_t size);

/* One pass's commits. Borrowed, valid during the callback only. */
typedef struct fastdllm_commit_event {
  size_t struct_size;
  int64_t step;        /* pass within the request, from 0 */
  int64_t block;       /* from 0 */
  int64_t block_start; /* the block is [block_start, block_end) of the new tokens */
  int64_t block_end;
  const int32_t* positions;  /* [num_positions], ascending indices into the new tokens */
  const int32_t* token_ids;  /* [num_positions] */
  const double* confidences; /* [num_positions], probabilities of the tokens */
  int64_t num_positions;
  int64_t block_finished; /* 1: the block's tokens, as far as they are asked for, are final */
  int64_t refreshed;      /* 1: the pass started from nothing or filled the cache; 0: a step */
  int64_t rows;           /* fed to the graph by the pass, guidance rows included */
} fastdllm_commit_event;

/* Called after every pass, on the engine's thread, where it holds up all requests; true goes on,
 * false ends the request with abort, unless this pass has ended it. A call that would wait for the
 * engine is refused there. */
typedef bool (*fastdllm_commit_callback)(const fastdllm_commit_event* event, void* user_data);
/* Called on the engine's thread when a request has ended, perhaps before submit has returned. Calls
 * that wait for the end return after it has returned; on this thread they do not wait. */
typedef void (*fastdllm_done_callback)(void* user_data);

/* What a request calls; NULL functions are not called. user_data lives until on_done was called, or
 * without one until the request has ended. */
typedef struct fastdllm_callbacks {
  size_t struct_size;
  fastdllm_commit_callback on_commit;
  fastdllm_done_callback on_done;
  void* user_data;
} fastdllm_callbacks;

FASTDLLM_API fastdllm_status fastdllm_callbacks_default(fastdllm_callbacks* callbacks, size_t size);

/* --- the engine ---------------------------------------------------------------------------- */

typedef struct fastdllm_engine fastdllm_engine;
typedef struct fastdllm_request fastdllm_request;

/* Loads the package in a folder. */
FASTDLLM_API fastdllm_status fastdllm_engine_open(const char* package,
                                                  const fastdllm_engine_options* options,
                                                  fastdllm_engine** engine);
/* Ends all requests with FASTDLLM_FINISH_ABORT. The handles of requests stay valid. */
FASTDLLM_API void fastdllm_engine_free(fastdllm_engine* engine);
/* The error of fastdllm_engine_open; "" when it succeeded. */
FASTDLLM_API const char* fastdllm_engine_error(const fastdllm_engine* engine);
/* The backend's name, version and device, for people. */
FASTDLLM_API const char* fastdllm_engine_backend(const fastdllm_engine* engine);

/* Facts of a package. Optional ones are FASTDLLM_NONE where it has none. */
typedef struct fastdllm_package_info {
  size_t struct_size;
  const char* path;
  const char* graph; /* absolute path of model.onnx */
  const char* family;
  const char* precision;  /* "fp32", "fp16", "bf16", "int8", "int4" */
  const char* cache_type; /* "float32", "float16", ... */
  const char* attention;  /* "bidirectional", "block_causal" */
  const char* confidence; /* "raw", "processed" */
  int64_t format_version;
  int64_t opset;
  int64_t num_layers;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t hidden_size;
  int64_t vocab_size;         /* ids are in [0, vocab_size) */
  int64_t max_context_length; /* prompt + new tokens */
  int64_t mask_token_id;
  const int32_t* eos_token_ids;
  int64_t num_eos_token_ids;
  int64_t pad_token_id; /* or none */
  int64_t bos_token_id; /* or none */
  int64_t logits_shift;
  int64_t block_length;     /* or none */
  int64_t sub_block_length; /* or none */
  int64_t min_prompt_length;
  int32_t seed_token;
  int32_t threshold_inclusive;
} fastdllm_package_info;

FASTDLLM_API fastdllm_status fastdllm_engine_package(const fastdllm_engine* engine,
                                                     fastdllm_package_info* info, size_t size);

/* Decodes max_new_tokens positions after prompt_ids, ids in [0, vocab_size) without the mask token,
 * and waits for the end. The status is the request's. */
FASTDLLM_API fastdllm_status fastdllm_engine_generate(fastdllm_engine* engine,
                                                      const int32_t* prompt_ids, int64_t num_ids,
                                                      const fastdllm_config* config,
                                                      const fastdllm_callbacks* callbacks,
                                                      fastdllm_request** request);
/* The same without waiting. */
FASTDLLM_API fastdllm_status fastdllm_engine_submit(fastdllm_engine* engine,
                                                    const int32_t* prompt_ids, int64_t num_ids,
                                                    const fastdllm_config* config,
                                                    const fastdllm_callbacks* callbacks,
                                                    fastdllm_request** request);

/* Replaces the mask tokens in canvas_ids and keeps all other ids. The result is the whole canvas;
 * positions in events are indices into it. max_new_tokens is ignored. */
FASTDLLM_API fastdllm_status fastdllm_engine_infill(fastdllm_engine* engine,
                                                    const int32_t* canvas_ids, int64_t num_ids,
                                                    const fastdllm_config* config,
                                                    const fastdllm_callbacks* callbacks,
                                                    fastdllm_request** request);
FASTDLLM_API fastdllm_status fastdllm_engine_submit_infill(
    fastdllm_engine* engine, const int32_t* canvas_ids, int64_t num_ids,
    const fastdllm_config* config, const fastdllm_callbacks* callbacks, fastdllm_request** request);

/* One plain pass without cache: logits [num_positions, vocab_size], before any logit shift. Mask
 * tokens are allowed in ids. block_length: of block-causal attention; none = the package's. */
FASTDLLM_API fastdllm_status fastdllm_engine_logits(fastdllm_engine* engine, const int32_t* ids,
                                                    int64_t num_ids, const int32_t* positions,
                                                    int64_t num_positions, int64_t block_length,
                                                    fastdllm_output** output);

/* --- a request ----------------------------------------------------------------------------- */
/* From many threads at once, freeing apart. It may outlive its engine. */

/* Frees the handle. An unfinished request continues to its end; to avoid that, cancel it first. */
FASTDLLM_API void fastdllm_request_free(fastdllm_request* request);
/* Waits until the request has ended and on_done has returned, at most this many milliseconds; 0 =
 * do not wait. Returns whether that is so. A refused request has ended, and so has NULL. Inside a
 * callback of the engine it does not wait. */
FASTDLLM_API bool fastdllm_request_wait_for(const fastdllm_request* request, int64_t milliseconds);
/* Whether the request has ended. on_done may still be running. */
FASTDLLM_API bool fastdllm_request_done(const fastdllm_request* request);
/* Ends the request before its next pass, with FASTDLLM_FINISH_ABORT. Does nothing when it has
 * already ended. */
FASTDLLM_API fastdllm_status fastdllm_request_cancel(fastdllm_request* request);
/* Why it was refused or failed; "" while it is under way and where it went well. */
FASTDLLM_API const char* fastdllm_request_error(fastdllm_request* request);

typedef struct fastdllm_result {
  size_t struct_size;
  const int32_t* token_ids; /* [num_tokens]; cut after the first stop token, or its block, unless
                               ignore_eos; on abort, before the first masked position */
  const double* logprobs;   /* [num_tokens], of each token as it was committed */
  int64_t num_tokens;
  int64_t num_passes;                   /* graph runs */
  fastdllm_finish_reason finish_reason; /* abort is no error */
  int32_t reserved;                     /* 0 */
} fastdllm_result;

typedef struct fastdllm_stats {
  size_t struct_size;
  int64_t refresh_passes;      /* passes that started from nothing or filled the cache */
  int64_t step_passes;         /* passes that only read a cache */
  int64_t reused_rows;         /* prompt rows whose K/V an earlier request had left */
  int64_t rows_computed;       /* rows fed to the graph */
  int64_t logit_rows_computed; /* rows whose logits were computed */
  double graph_seconds;        /* inside the backend's runs, shared ones in full */
  double total_seconds;        /* from the call on */
  int64_t cache_bytes;         /* K/V held by this request's block cache */
} fastdllm_stats;

/* Wait for the end and return the request's status. After an error, all fields are zero. */
FASTDLLM_API fastdllm_status fastdllm_request_result(fastdllm_request* request,
                                                     fastdllm_result* result, size_t size);
FASTDLLM_API fastdllm_status fastdllm_request_stats(fastdllm_request* request,
                                                    fastdllm_stats* stats, size_t size);

/* --- an output ----------------------------------------------------------------------------- */
/* The result of a call that makes no request: token ids, logits or text. The functions for the
 * other two return NULL. */

FASTDLLM_API void fastdllm_output_free(fastdllm_output* output);
FASTDLLM_API const char* fastdllm_output_error(const fastdllm_output* output);
FASTDLLM_API const int32_t* fastdllm_output_ids(const fastdllm_output* output);
FASTDLLM_API const float* fastdllm_output_logits(const fastdllm_output* output);
/* Ends with a NUL that does not count. */
FASTDLLM_API const char* fastdllm_output_text(const fastdllm_output* output);
/* Of ids, logits or bytes of text. */
FASTDLLM_API int64_t fastdllm_output_size(const fastdllm_output* output);

#ifdef __cplusplus
}
#endif

#endif
