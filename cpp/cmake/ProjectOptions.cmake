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
