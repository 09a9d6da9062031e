# Finds TensorRT's headers for the native backend. Order: TENSORRT_ROOT, the system (JetPack's), .deps
# (made by get_tensorrt_headers.sh, which a build of fastdllm itself runs once where they are missing).
# libnvinfer and CUDA are found at run time.
set(FASTDLLM_BACKEND_TENSORRT AUTO CACHE STRING "Native TensorRT backend: ON, OFF, or AUTO: where its headers are")
set_property(CACHE FASTDLLM_BACKEND_TENSORRT PROPERTY STRINGS AUTO ON OFF)
set(TENSORRT_ROOT "$ENV{TENSORRT_ROOT}" CACHE PATH "Folder whose include/ holds TensorRT's headers")

set(FASTDLLM_HAS_TENSORRT OFF)
macro(_fastdllm_find_tensorrt)
  find_path(FASTDLLM_TENSORRT_INCLUDE NvInferRuntime.h
            HINTS "${TENSORRT_ROOT}" "${PROJECT_SOURCE_DIR}/.deps/tensorrt" "${_fastdllm_fetched}/tensorrt"
            PATH_SUFFIXES include)
endmacro()

set(FASTDLLM_TENSORRT_PROBLEM "FASTDLLM_BACKEND_TENSORRT is ${FASTDLLM_BACKEND_TENSORRT}")
if(FASTDLLM_BACKEND_TENSORRT)
  _fastdllm_find_tensorrt()
  # Another project gets them when it asks for the backend by name.
  if(NOT FASTDLLM_TENSORRT_INCLUDE AND FASTDLLM_GET_HEADERS AND NOT FASTDLLM_TENSORRT_TRIED
     AND (PROJECT_IS_TOP_LEVEL OR NOT FASTDLLM_BACKEND_TENSORRT STREQUAL "AUTO"))
    set(FASTDLLM_TENSORRT_TRIED ON CACHE INTERNAL "TensorRT's headers were asked for, once")
    find_program(_fastdllm_python NAMES "${Python_EXECUTABLE}" "${Python3_EXECUTABLE}" python3 python NO_CACHE)
    execute_process(
      COMMAND "${CMAKE_CURRENT_LIST_DIR}/get_tensorrt_headers.sh" "${_fastdllm_fetched}" "${_fastdllm_python}"
      ERROR_VARIABLE FASTDLLM_TENSORRT_PROBLEM TIMEOUT 300)
    string(STRIP "${FASTDLLM_TENSORRT_PROBLEM}" FASTDLLM_TENSORRT_PROBLEM)
    _fastdllm_find_tensorrt()
  endif()
  if(FASTDLLM_TENSORRT_INCLUDE)
    set(FASTDLLM_HAS_TENSORRT ON)
    add_library(fastdllm_tensorrt_headers INTERFACE)
    target_include_directories(fastdllm_tensorrt_headers SYSTEM INTERFACE
      "${PROJECT_SOURCE_DIR}/cpp/src/backends/tensorrt/cuda_types" "${FASTDLLM_TENSORRT_INCLUDE}")
  elseif(NOT FASTDLLM_BACKEND_TENSORRT STREQUAL "AUTO")
    message(FATAL_ERROR
      "FASTDLLM_BACKEND_TENSORRT is ${FASTDLLM_BACKEND_TENSORRT}, but NvInferRuntime.h was not found. Set "
      "TENSORRT_ROOT, or run\n  cpp/cmake/get_tensorrt_headers.sh .deps\n${FASTDLLM_TENSORRT_PROBLEM}")
  endif()
endif()
if(FASTDLLM_HAS_TENSORRT)
  message(STATUS "TensorRT backend: ${FASTDLLM_TENSORRT_INCLUDE}")
endif()
# Said at the end of the configuration, where it is seen.
function(fastdllm_report_tensorrt)
  if(NOT FASTDLLM_HAS_TENSORRT AND PROJECT_IS_TOP_LEVEL)
    message("The TensorRT backend is not built: NvInferRuntime.h was not found (set TENSORRT_ROOT). "
      "${FASTDLLM_TENSORRT_PROBLEM}")
  endif()
endfunction()
