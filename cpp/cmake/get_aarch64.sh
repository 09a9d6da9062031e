#!/usr/bin/env bash
# Unpacks what the aarch64 cross build and its tests need into DESTINATION, once:
#   root/                Debian's arm64 packages: GoogleTest, PCRE2, utf8proc, cpp-httplib, Python
#                        with its headers, and all that they need; also qemu's root (-L)
#   libonnxruntime.so    ONNX Runtime VERSION, from its aarch64 wheel on PyPI
# usage: get_aarch64.sh DESTINATION VERSION [PYTHON]   (a Python that has pip; default python3)
set -euo pipefail

destination=${1:?usage: get_aarch64.sh DESTINATION VERSION [PYTHON]}
version=${2:?usage: get_aarch64.sh DESTINATION VERSION [PYTHON]}
python=${3:-python3}
stamp=$destination/.onnxruntime-$version
[ ! -e "$stamp" ] || exit 0

# The suite is the machine's own, since its cross compiler's C library must not be newer.
. "$(dirname "$0")/private_apt.sh"
suite=$(debian_suite bookworm)
echo "fetching the aarch64 packages of Debian $suite, and ONNX Runtime $version" >&2
private_apt "$suite" arm64
"${apt_get[@]}" install -qq -y --download-only --no-install-recommends libgtest-dev libpcre2-dev \
  libutf8proc-dev libcpp-httplib-dev libstdc++6 python3 libpython3-dev >"$work/apt.log" 2>&1 || {
  cat "$work/apt.log" >&2
  exit 1
}
root=$work/root
for package in "$work"/cache/archives/*.deb; do
  case "${package##*/}" in
    libc6-dev_* | linux-libc-dev_*) ;; # the cross compiler has its own; two sets of them clash
    *) dpkg -x "$package" "$root" ;;
  esac
done

# ONNX Runtime reads what the CPU is from here and crashes on an x86-64 machine's answer. qemu-user
# shows a program files of its root first. The part is a Cortex-A78AE, Jetson Orin's.
mkdir -p "$root/proc"
for processor in $(seq 0 $(($(nproc) - 1))); do
  printf 'processor\t: %d\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n' "$processor"
  printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd42\nCPU revision\t: 1\n\n'
done >"$root/proc/cpuinfo"

# pip compares the wheel with the digest that its index states.
"$python" -m pip --disable-pip-version-check download -q --no-deps --only-binary=:all: --python-version 3.11 \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 -d "$work" "onnxruntime==$version"
"$python" -m zipfile -e "$work"/onnxruntime-*.whl "$work/wheel"

rm -rf "$destination"
mkdir -p "$destination"
mv "$root" "$destination/root"
cp "$work/wheel/onnxruntime/capi/libonnxruntime.so.$version" "$destination/libonnxruntime.so"
touch "$stamp"
