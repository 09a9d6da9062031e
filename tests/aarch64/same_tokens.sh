#!/usr/bin/env bash
# Decodes the same cases with the x86-64 build and, under qemu, with the aarch64 build: the tokens,
# the numbers of passes and the reasons to finish have to be the same.
# usage: same_tokens.sh PACKAGE X86_64_ONNXRUNTIME   (after the builds `dev` and `aarch64`)
set -euo pipefail

package=${1:?usage: same_tokens.sh PACKAGE X86_64_ONNXRUNTIME}
onnxruntime=${2:?usage: same_tokens.sh PACKAGE X86_64_ONNXRUNTIME}
cd "$(dirname "$0")/../.."
out=build/aarch64/tests/aarch64
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)

decode() { # decode BUILD [EMULATOR ...]: token ids of the cases, and text in, text out
  local build=build/$1
  shift
  "$@" "$build/tests/aarch64/decode_cases" "$package"
  "$@" "$build/cpp/apps/fastdllm-cli" generate "$package" --max-new-tokens 32 \
    --prompt "Owen had 30 balls, bought 2 and lost 8. How many are left?" >"$out/answer"
  echo "text: $(tr '\n' ' ' <"$out/answer")"
}
FASTDLLM_ONNXRUNTIME=$onnxruntime decode dev >"$out/x86_64.txt"
FASTDLLM_ONNXRUNTIME=$PWD/.deps/aarch64/libonnxruntime.so \
  decode aarch64 "$qemu" -L .deps/aarch64/root >"$out/aarch64.txt"
diff "$out/x86_64.txt" "$out/aarch64.txt"
tokens=$(sed '/^text: /d; s/^[^:]*: //; s/|.*//' "$out/aarch64.txt" | wc -w)
passes=$(grep -oE '[0-9]+ passes' "$out/aarch64.txt" | awk '{ sum += $1 } END { print sum }')
grep "^text: " "$out/aarch64.txt"
echo "aarch64 under qemu: $(wc -l <"$out/aarch64.txt") generations, $tokens tokens, $passes passes, all as on x86-64"
