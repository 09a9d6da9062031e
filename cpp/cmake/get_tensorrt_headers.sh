#!/usr/bin/env bash
# Unpacks TensorRT's C++ headers into DESTINATION/tensorrt/include, once, to compile the backend
# where there is no TensorRT: libnvinfer is found at run time, none is needed here. They come from
# the PyPI wheel kernel-lens, which carries those of TensorRT 10.14. Who has the SDK names it by
# TENSORRT_ROOT instead.
# usage: get_tensorrt_headers.sh DESTINATION [PYTHON]
set -euo pipefail

destination=${1:?usage: get_tensorrt_headers.sh DESTINATION [PYTHON]}/tensorrt
python=${2:-python3}
[ ! -e "$destination/include/NvInferRuntime.h" ] || exit 0

mkdir -p "$destination"
work=$(mktemp -d "$destination/part.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetching TensorRT's headers (kernel-lens of PyPI)" >&2
echo "kernel-lens==2.0.1 --hash=sha256:07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0" \
  >"$work/requirements.txt"
pip=("$python" -m pip)
# A wheel is built in an environment of its own; the pip that builds it lies outside.
"${pip[@]}" --version >/dev/null 2>&1 || pip=(env -u PYTHONPATH "$python" -m pip)
"${pip[@]}" --disable-pip-version-check download -q --no-deps --only-binary :all: --require-hashes \
  -d "$work" -r "$work/requirements.txt" >&2
"$python" -m zipfile -e "$work"/kernel_lens-*.whl "$work/wheel"
rm -rf "$destination/include"
mv "$work/wheel/kernel_lens/include/tensorrt" "$destination/include"
