#!/usr/bin/env bash
# Unpacks the tar.gz in FOLDER, moves what was in it to TARGET, and looks at it as a user's machine
# would: nothing in it may point back to where it was built. Prints the libraries' sizes.
# An older version's archive may lie beside it in a build folder that was used before.
# usage: unpack.sh FOLDER TARGET BUILD VERSION
set -euo pipefail
folder=$1 target=$2 build=$3 version=$4

fail() { echo "unpack.sh: $1" >&2; exit 1; }

archives=("$folder/fastdllm-$version"-*.tar.gz)
[ ${#archives[@]} = 1 ] && [ -e "${archives[0]}" ] || fail "expected one tar.gz of $version in $folder, found: ${archives[*]}"
archive=${archives[0]}
[ "$(stat -c %s "$archive")" -lt 20000000 ] || fail "$archive is larger than 20 MB"

rm -rf "$target" "$target.first"
mkdir -p "$target.first"
tar -xzf "$archive" -C "$target.first"
name=$(basename "$archive" .tar.gz)
[ "$(ls "$target.first")" = "$name" ] || fail "expected the folder $name alone in it, found: $(ls "$target.first")"
mv "$target.first/$name" "$target"
rmdir "$target.first"

for file in include/fastdllm/engine.hpp lib/libfastdllm.so lib/cmake/fastdllm/fastdllmConfig.cmake \
            lib/pkgconfig/fastdllm.pc share/doc/fastdllm/LICENSE share/doc/fastdllm/README.md; do
  [ -e "$target/$file" ] || fail "$file is missing"
done
! grep -rlF "$build" "$target" || fail "these files name the build folder, $build"

# What was brought along is what is loaded.
for binary in "$target"/lib/libfastdllm*.so "$target"/bin/*; do
  [ -e "$binary" ] || continue
  # No pipe: a grep that stops reading ends readelf, which would count as "not found".
  sections=$(readelf -SW "$binary")
  ! grep -q '\.symtab' <<<"$sections" || fail "$binary is not stripped"
  libraries=$(ldd "$binary")
  ! grep 'not found' <<<"$libraries" || fail "$binary does not find its libraries"
  for name in libfastdllm libpcre2-8 libutf8proc; do
    path=$(sed -n "s|.*$name[^ ]* => \([^ ]*\) .*|\1|p" <<<"$libraries" | head -n 1)
    case "$path" in "" | "$target"/*) ;; *) fail "$binary loads $path, not the library in $target" ;; esac
  done
done

find "$target/lib" "$target/bin" -maxdepth 1 -type f -printf '%9s bytes  %P\n' 2>/dev/null || true
stat -c '%9s bytes  %n' "$archive"
