#include "fastdllm/tokenizer.hpp"
