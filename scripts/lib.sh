# Shared by the scripts of this folder: where things are, how to say things, and how to find the pinned runtime.
# Sourced, never run.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
quiet=${quiet:-0}

say() { [ "$quiet" = 1 ] || printf '%s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  [ -z "${2:-}" ] || printf '%s: hint: %s\n' "${0##*/}" "$2" >&2
  exit "${3:-1}"
}

# machine_of TARGET: the npm name of the runtime package for linux-x64 or linux-arm64, without its scope.
host_target() {
  case $(uname -m) in
    x86_64) echo linux-x64 ;;
    aarch64) echo linux-arm64 ;;
    *) die "$(uname -m): only x86-64 and arm64 machines are supported" ;;
  esac
}

runtime_package() {
  case $1 in
    linux-x64) echo bun-linux-x64 ;;
    linux-arm64) echo bun-linux-aarch64 ;;
    *) die "unknown target $1" "use linux-x64 or linux-arm64" 2 ;;
  esac
}

# The pinned runtime of this checkout. Older processors have a package of their own.
find_bun() {
  local candidate
  for candidate in "$root/node_modules/@oven/$(runtime_package "$(host_target)")"{,-baseline}/bin/bun; do
    if [ -x "$candidate" ]; then
      echo "$candidate"
      return
    fi
  done
  die "the runtime is not installed" "run scripts/setup"
}

# newer_than FILE PATH...: whether FILE is missing or something under the paths is newer than it.
newer_than() {
  local file=$1
  shift
  [ ! -e "$file" ] || [ -n "$(find "$@" -newer "$file" -print -quit 2>/dev/null)" ]
}

cache_dir() { echo "${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/mvm"; }

seconds_since() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }'; }

# file_is_static FILE: whether FILE is an executable that needs no dynamic linker.
file_is_static() { [ -x "$1" ] && ! grep -qa -m1 '/ld-linux' "$1"; }
