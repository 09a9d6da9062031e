/* Checks of the C tests: a program counts its failures and returns them. */
#ifndef FASTDLLM_TESTS_CHECK_H
#define FASTDLLM_TESTS_CHECK_H

#include <stdio.h>
#include <string.h>

static int failures = 0;

#define CHECK(condition)                                             \
  do {                                                               \
    if (!(condition)) {                                              \
      printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                    \
    }                                                                \
  } while (0)

#define CHECK_TEXT(found, expected)                                    \
  do {                                                                 \
    const char* found_ = (found);                                      \
    if (found_ == NULL || strcmp(found_, (expected)) != 0) {           \
      printf("%s:%d: found '%s', expected '%s'\n", __FILE__, __LINE__, \
             found_ == NULL ? "NULL" : found_, (expected));            \
      ++failures;                                                      \
    }                                                                  \
  } while (0)

#define CHECK_HOLDS(found, part)                                                  \
  do {                                                                            \
    const char* found_ = (found);                                                 \
    if (found_ == NULL || strstr(found_, (part)) == NULL) {                       \
      printf("%s:%d: found '%s', expected it to hold '%s'\n", __FILE__, __LINE__, \
             found_ == NULL ? "NULL" : found_, (part));                           \
      ++failures;                                                                 \
    }                                                                             \
  } while (0)

#endif
