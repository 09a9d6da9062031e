#include "fastdllm/tokenizer.hpp"

#include <gtest/gtest.h>
