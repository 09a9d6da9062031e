/* An engine without a model, for C: ids in [0, 16), 15 the mask token, 14 ends an answer, a context
 * of 512. The token at a position is that position modulo 10. The caller frees it. */
#ifndef FASTDLLM_TESTS_SCRIPTED_ENGINE_H
#define FASTDLLM_TESTS_SCRIPTED_ENGINE_H

#include <fastdllm/fastdllm.h>

#ifdef __cplusplus
extern "C" {
#endif

fastdllm_engine* scripted_engine(const fastdllm_engine_options* options);
/* One whose model answers with NaN. */
fastdllm_engine* broken_engine(void);

#ifdef __cplusplus
}
#endif

#endif
