#!/usr/bin/env bash
# Runs every fuzz target on its seeds and on what libFuzzer makes of them.
# usage: run.sh BUILD_FOLDER [SECONDS]   without SECONDS: a fixed number of runs of a fixed seed
set -euo pipefail

programs=$(realpath "${1:?usage: run.sh BUILD_FOLDER [SECONDS]}")/tests/fuzz
seeds=$(realpath "$(dirname "$0")")/corpus
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for target in package:2000 model:200000 c_api:20000 tokenizer:5000 text:10000; do
  name=${target%:*}
  limit=(-seed=1 "-runs=${target#*:}")
  [ -z "${2:-}" ] || limit=("-max_total_time=$2")
  mkdir "$work/$name"
  # A finding is left where the script was called.
  if ! "$programs/${name}_fuzzer" "${limit[@]}" -max_len=16384 -timeout=20 -print_final_stats=1 \
    "$work/$name" "$seeds/$name" >"$work/log" 2>&1; then
    cat "$work/log"
    exit 1
  fi
  sed -nE '/DONE|Done/p' "$work/log" | tail -n 2 | tr '\n' ' ' # for the reader: no such line is no failure
  echo "($name)"
done
