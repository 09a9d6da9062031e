# Warnings, sanitizers and the language standard, as a target that our own targets link privately.
add_library(fastdllm_options INTERFACE)
target_compile_features(fastdllm_options INTERFACE cxx_std_20)
target_compile_options(fastdllm_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
                                                  -Wold-style-cast -Wconversion -Wno-sign-conversion)
if(FASTDLLM_WERROR)
  target_compile_options(fastdllm_options INTERFACE -Werror)
endif()
if(FASTDLLM_SANITIZE)
  target_compile_options(fastdllm_options INTERFACE -fsanitize=${FASTDLLM_SANITIZE} -fno-omit-frame-pointer
                                                    -fno-sanitize-recover=all)
  target_link_options(fastdllm_options INTERFACE -fsanitize=${FASTDLLM_SANITIZE})
endif()

# Compiles a program's large headers once. They are those of the standard library and what is named.
function(fastdllm_precompile name)
  target_precompile_headers(${name} PRIVATE ${ARGN} <algorithm> <filesystem> <functional> <map> <memory>
                                            <optional> <span> <string> <vector>)
endfunction()

# A program of GoogleTest: not optimized beyond -O1, since its own code is not what takes time.
function(fastdllm_test_program name)
  target_link_libraries(${name} PRIVATE GTest::gtest_main)
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  fastdllm_precompile(${name} <gtest/gtest.h> <nlohmann/json.hpp>)
  gtest_discover_tests(${name})
endfunction()
