# Sourced by the scripts that unpack Debian packages into a folder: an apt with lists, settings and
# a cache of its own, so that the system's package lists and packages stay as they are, and no root
# rights are needed. apt checks the signature of the lists and the digests of the packages.

# The machine's suite of Debian; $1 where it is no Debian, or says none (unstable).
debian_suite() {
  local codename
  codename=$(. /etc/os-release && printf '%s' "${ID:-}:${VERSION_CODENAME:-}")
  case "$codename" in debian:?*) echo "${codename#debian:}" ;; *) echo "$1" ;; esac
}

# private_apt SUITE [ARCHITECTURE]: makes the folder $work, removed on exit, and the command
# "${apt_get[@]}" with fresh lists. With an architecture, nothing counts as installed.
private_apt() {
  command -v apt-get >/dev/null || { echo "Debian's apt-get is needed" >&2; return 1; }
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/parts"

  local mirror
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    grep -v '^#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "${mirror:-http://deb.debian.org/debian}" "$1" /usr/share/keyrings/debian-archive-keyring.gpg \
    >"$work/sources.sources"

  apt_get=(apt-get -o "Dir::Etc::sourcelist=$work/sources.sources" -o "Dir::Etc::sourceparts=$work/parts"
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache"
    -o Dir::Etc::preferencesparts=/dev/null -o Dir::Etc::preferences=/dev/null
    -o APT::Sandbox::User= -o Acquire::Languages=none)
  if [ -n "${2:-}" ]; then
    : >"$work/status"
    apt_get+=(-o "APT::Architecture=$2" -o "APT::Architectures::=$2" -o "Dir::State=$work"
      -o "Dir::State::status=$work/status" -o Debug::NoLocking=1)
  fi
  "${apt_get[@]}" update -qq >&2
}
