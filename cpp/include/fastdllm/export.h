/* Marks what the libraries export; everything else is hidden. C and C++. */
#ifndef FASTDLLM_EXPORT_H
#define FASTDLLM_EXPORT_H

#if defined(__GNUC__)
#define FASTDLLM_API __attribute__((visibility("default")))
#else
#define FASTDLLM_API
#endif

#endif
