/* All that TensorRT's headers want of CUDA's: two handles. CUDA itself is opened at run time. */
#ifndef FASTDLLM_CUDA_RUNTIME_API_H
#define FASTDLLM_CUDA_RUNTIME_API_H

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;

#endif
