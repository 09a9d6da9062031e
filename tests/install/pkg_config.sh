#!/usr/bin/env bash
# Builds the consumers as a project without CMake does, with pkg-config, and runs them.
# usage: pkg_config.sh PREFIX C_COMPILER C++_COMPILER PROGRAM...
set -euo pipefail
prefix=$1 c=$2 cxx=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name fastdllm.pc)")
export PKG_CONFIG_PATH

for program in "$@"; do
  case "$program" in text_*) package=fastdllm_text ;; *) package=fastdllm ;; esac
  case "$program" in
    c_*) compile=("$c" -std=c99 "$here/$program.c") ;;
    *) compile=("$cxx" -std=c++20 "$here/$program.cpp") ;;
  esac
  "${compile[@]}" $(pkg-config --cflags --libs "$package") \
    "-Wl,-rpath,$(pkg-config --variable=libdir "$package")" -o "$work/$program"
  "$work/$program" # 77, skipped, is passed on
done
