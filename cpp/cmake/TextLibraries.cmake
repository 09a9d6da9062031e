# What fastdllm::text is built on: PCRE2 splits, utf8proc normalizes.
find_package(PkgConfig REQUIRED)
pkg_check_modules(FASTDLLM_PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(FASTDLLM_UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
