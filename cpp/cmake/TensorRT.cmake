# Finds TensorRT's headers for the native backend. Order: TENSORRT_ROOT, the system (JetPack's), .deps
# (made by get_tensorrt_headers.sh). libnvinfer and CUDA are found at run time.
set(FASTDLLM_BACKEND_TENSORRT AUTO CACHE STRING "Native TensorRT backend: ON, OFF, or AUTO: where its headers are")
set_property(CACHE FASTDLLM_BACKEND_TENSORRT PROPERTY STRINGS AUTO ON OFF)
set(TENSORRT_ROOT "$ENV{TENSORRT_ROOT}" CACHE PATH "Folder whose include/ holds TensorRT's headers")

set(FASTDLLM_HAS_TENSORRT OFF)
if(FASTDLLM_BACKEND_TENSORRT)
  find_path(FASTDLLM_TENSORRT_INCLUDE NvInferRuntime.h
            HINTS "${TENSORRT_ROOT}" "${PROJECT_SOURCE_DIR}/.deps/tensorrt" PATH_SUFFIXES include)
  if(FASTDLLM_TENSORRT_INCLUDE)
    set(FASTDLLM_HAS_TENSORRT ON)
    add_library(fastdllm_tensorrt_headers INTERFACE)
    target_include_directories(fastdllm_tensorrt_headers SYSTEM INTERFACE
      "${PROJECT_SOURCE_DIR}/cpp/src/backends/tensorrt/cuda_types" "${FASTDLLM_TENSORRT_INCLUDE}")
  elseif(NOT FASTDLLM_BACKEND_TENSORRT STREQUAL "AUTO")
    message(FATAL_ERROR
      "FASTDLLM_BACKEND_TENSORRT is ${FASTDLLM_BACKEND_TENSORRT}, but NvInferRuntime.h was not found. Set "
      "TENSORRT_ROOT, or run\n  cpp/cmake/get_tensorrt_headers.sh .deps")
  endif()
endif()
if(FASTDLLM_HAS_TENSORRT)
  message(STATUS "TensorRT backend: ${FASTDLLM_TENSORRT_INCLUDE}")
else()
  message(STATUS "TensorRT backend: none (FASTDLLM_BACKEND_TENSORRT is ${FASTDLLM_BACKEND_TENSORRT})")
endif()
