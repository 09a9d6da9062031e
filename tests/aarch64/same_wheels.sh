#!/usr/bin/env bash
# Installs both wheels of dist/ with what they depend on, into folders, and generates with each, the
# aarch64 one with Debian's aarch64 Python under qemu: the answers have to be the same.
# usage: same_wheels.sh PACKAGE PYTHON   (after bindings/build_wheels.sh; PYTHON has the dependencies)
set -euo pipefail

package=${1:?usage: same_wheels.sh PACKAGE PYTHON}
python=${2:?usage: same_wheels.sh PACKAGE PYTHON}
cd "$(dirname "$0")/../.."
root=$PWD/.deps/aarch64/root
guest=$(echo "$root"/usr/bin/python3.*)
version=${guest##*/python}
out=build/wheels/installed
rm -rf "$out"
pip=("$python" -m pip --disable-pip-version-check install -q --only-binary=:all:)
"${pip[@]}" --no-deps --target "$out/x86_64" dist/fastdllm-*_x86_64.whl
# pip takes a wheel of an older glibc only where it is told that one's name.
platforms=()
for tag in manylinux_2_{17,24,26,27,28,31,34,35,36}_aarch64 manylinux2014_aarch64; do platforms+=(--platform "$tag"); done
"${pip[@]}" --python-version "$version" "${platforms[@]}" --target "$out/aarch64" dist/fastdllm-*_aarch64.whl

question="Sam has 2 jars of 5 books and gives 4 away. How many books are left?"
arguments=(-m fastdllm generate "$package" --prompt "$question" --max-new-tokens 32)
sampled=(--temperature 6 --seed 5 --steps 4 --cache dual)
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)
for options in "" "${sampled[*]}"; do
  # shellcheck disable=SC2086
  PYTHONPATH=$out/x86_64 "$python" "${arguments[@]}" $options
done >"$out/x86_64.txt"
for options in "" "${sampled[*]}"; do
  # shellcheck disable=SC2086
  PYTHONPATH=$out/aarch64 "$qemu" -L "$root" "$guest" "${arguments[@]}" $options
done >"$out/aarch64.txt"
diff "$out/x86_64.txt" "$out/aarch64.txt"
echo "the aarch64 wheel under qemu (Python $version) says what the x86-64 wheel says:"
cat "$out/aarch64.txt"
