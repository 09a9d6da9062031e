#include "fastdllm/text.hpp"
