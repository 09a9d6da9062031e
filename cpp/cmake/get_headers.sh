#!/usr/bin/env bash
# Unpacks the headers that the C++ build needs into DESTINATION/include, once: ONNX Runtime's (its
# library is found at run time, none is needed here) and nlohmann/json's. They come from Debian's
# libonnxruntime-dev and nlohmann-json3-dev. Debian 12 lacks the first but its mirror also serves
# Debian 13, so the machine's own mirror is asked for trixie, in private apt folders: the system's
# package lists and packages stay as they are, and no root rights are needed.
# usage: get_headers.sh DESTINATION
set -euo pipefail

destination=${1:?usage: get_headers.sh DESTINATION}
if [ -e "$destination/include/onnxruntime_cxx_api.h" ] && [ -e "$destination/include/nlohmann/json.hpp" ]; then
  exit 0
fi
command -v apt-get >/dev/null || {
  echo "get_headers.sh needs Debian's apt-get; elsewhere unpack ONNX Runtime's release archive and nlohmann/json into $destination/include" >&2
  exit 1
}

# Debian 13 and newer have the package themselves; what is older, or no Debian, reads trixie.
. "$(dirname "$0")/private_apt.sh"
suite=$(debian_suite trixie)
[ "$suite" != bookworm ] || suite=trixie
echo "fetching C++ headers (libonnxruntime-dev, nlohmann-json3-dev of Debian $suite)" >&2
private_apt "$suite"
(cd "$work" && "${apt_get[@]}" download -qq libonnxruntime-dev nlohmann-json3-dev >&2)

for package in "$work"/*.deb; do dpkg -x "$package" "$work/root"; done
onnxruntime=$(find "$work/root" -name onnxruntime_cxx_api.h -print -quit)
[ -n "$onnxruntime" ] || { echo "libonnxruntime-dev holds no onnxruntime_cxx_api.h" >&2; exit 1; }

# Written beside, then renamed: a half-written folder never looks whole.
mkdir -p "$destination"
staging=$(mktemp -d "$destination/include.XXXXXX")
chmod 755 "$staging"
cp -r "$(dirname "$onnxruntime")/." "$staging"
cp -r "$work/root/usr/include/nlohmann" "$staging/"
rm -rf "$destination/include"
mv "$staging" "$destination/include"
