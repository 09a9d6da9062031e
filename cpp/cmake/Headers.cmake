# Finds the third-party headers: ONNX Runtime's C++ API and nlohmann/json. Both stay private to the
# library. Order: ONNXRUNTIME_ROOT, the system, .deps, and what get_headers.cmake fetches.
set(ONNXRUNTIME_ROOT "$ENV{ONNXRUNTIME_ROOT}" CACHE PATH
  "Folder whose include/ holds ONNX Runtime's headers, and nlohmann/json's where the system has none")
option(FASTDLLM_GET_HEADERS "Fetch headers that are missing; OFF builds without the network" ON)

# As a part of another project nothing is written beside its sources.
if(PROJECT_IS_TOP_LEVEL)
  set(_fastdllm_fetched "${PROJECT_SOURCE_DIR}/.deps")
else()
  set(_fastdllm_fetched "${PROJECT_BINARY_DIR}/deps")
endif()

macro(_fastdllm_find_headers)
  find_path(FASTDLLM_ONNXRUNTIME_INCLUDE onnxruntime_cxx_api.h
            HINTS "${ONNXRUNTIME_ROOT}" "${PROJECT_SOURCE_DIR}/.deps" "${_fastdllm_fetched}"
            PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session onnxruntime)
  find_path(FASTDLLM_JSON_INCLUDE nlohmann/json.hpp
            HINTS "${ONNXRUNTIME_ROOT}" "${PROJECT_SOURCE_DIR}/.deps" "${_fastdllm_fetched}"
            PATH_SUFFIXES include)
endmacro()

_fastdllm_find_headers()
set(FASTDLLM_HEADERS_PROBLEM "FASTDLLM_GET_HEADERS is OFF, so none are fetched")
if(FASTDLLM_GET_HEADERS AND NOT (FASTDLLM_ONNXRUNTIME_INCLUDE AND FASTDLLM_JSON_INCLUDE))
  execute_process(
    COMMAND "${CMAKE_COMMAND}" "-DDESTINATION=${_fastdllm_fetched}" -P "${CMAKE_CURRENT_LIST_DIR}/get_headers.cmake"
    ERROR_VARIABLE FASTDLLM_HEADERS_PROBLEM)
  string(STRIP "${FASTDLLM_HEADERS_PROBLEM}" FASTDLLM_HEADERS_PROBLEM)
  _fastdllm_find_headers()
endif()

add_library(fastdllm_headers INTERFACE)
if(FASTDLLM_ONNXRUNTIME_INCLUDE AND FASTDLLM_JSON_INCLUDE) # else Requirements.cmake says so
  target_include_directories(fastdllm_headers SYSTEM INTERFACE
    "${FASTDLLM_ONNXRUNTIME_INCLUDE}" "${FASTDLLM_JSON_INCLUDE}")
endif()
target_compile_definitions(fastdllm_headers INTERFACE ORT_API_MANUAL_INIT)
