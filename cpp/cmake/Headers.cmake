# Finds the third-party headers: ONNX Runtime's C++ API and nlohmann/json. Both stay private to the
# library. Order: ONNXRUNTIME_ROOT, the system, .deps (made by get_headers.sh).
set(ONNXRUNTIME_ROOT "$ENV{ONNXRUNTIME_ROOT}" CACHE PATH "Folder whose include/ holds ONNX Runtime's headers")
# A wheel build fetches its build requirements anyway; any other build downloads nothing by itself.
option(FASTDLLM_GET_HEADERS "Run get_headers.sh when headers are missing" "${SKBUILD}")
set(_fastdllm_deps "${PROJECT_SOURCE_DIR}/.deps")

macro(_fastdllm_find_headers)
  find_path(FASTDLLM_ONNXRUNTIME_INCLUDE onnxruntime_cxx_api.h
            HINTS "${ONNXRUNTIME_ROOT}" "${_fastdllm_deps}"
            PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session onnxruntime)
  find_path(FASTDLLM_JSON_INCLUDE nlohmann/json.hpp HINTS "${_fastdllm_deps}" PATH_SUFFIXES include)
endmacro()

_fastdllm_find_headers()
if(FASTDLLM_GET_HEADERS AND NOT (FASTDLLM_ONNXRUNTIME_INCLUDE AND FASTDLLM_JSON_INCLUDE))
  execute_process(COMMAND "${CMAKE_CURRENT_LIST_DIR}/get_headers.sh" "${_fastdllm_deps}")
  _fastdllm_find_headers()
endif()
if(NOT (FASTDLLM_ONNXRUNTIME_INCLUDE AND FASTDLLM_JSON_INCLUDE))
  message(FATAL_ERROR
    "Headers of ONNX Runtime (>= 1.21) and nlohmann/json are needed; found "
    "'${FASTDLLM_ONNXRUNTIME_INCLUDE}' and '${FASTDLLM_JSON_INCLUDE}'. Set ONNXRUNTIME_ROOT, or run\n"
    "  cpp/cmake/get_headers.sh .deps")
endif()

add_library(fastdllm_headers INTERFACE)
target_include_directories(fastdllm_headers SYSTEM INTERFACE
  "${FASTDLLM_ONNXRUNTIME_INCLUDE}" "${FASTDLLM_JSON_INCLUDE}")
target_compile_definitions(fastdllm_headers INTERFACE ORT_API_MANUAL_INIT)
