#include "fastdllm/llm.hpp"
