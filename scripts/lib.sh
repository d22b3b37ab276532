# shellcheck shell=bash
# What the scripts share.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Programs built from third-party source are kept here, by name, version and
# the hash of what they were built from.
# shellcheck disable=SC2034  # those that source this use it
cache=${TAILXDS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/tailxds}

# kept NAME VERSION HASH: the directory for what is built once.
# shellcheck disable=SC2154  # arch is set by those that build
kept() { echo "$cache/$1-$2-$arch-$3"; }

# keep DIR: what was built beside it is whole now. Another run may have been first, and then mv has put ours into its.
keep() {
  [[ -d $1 ]] || mv "$1.new.$$" "$1"
  rm -rf "$1.new.$$" "$1/$(basename "$1").new.$$"
}

# shellcheck disable=SC2034  # those that source this use it
go_flags=(-trimpath -buildvcs=false)

# image_of OWNER: the image as the compose files name it, the one place where versions stand.
image_of() { sed -n "s|^ *image: \($1/[^ ]*\).*|\1|p" "$root/compose.yaml" "$root/lab/server.yaml" | head -1; }

say() { printf '%s\n' "$*" >&2; }

# die says in one line what is missing and how to mend it.
die() {
  say "error: $*"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# no_install tells whether nothing may be installed on this machine.
no_install() { [[ ${LAB_NO_INSTALL:-} == 1 ]]; }

# within SECONDS COMMAND... fails if the command takes longer. (macOS has no timeout.)
within() {
  local seconds=$1 pid waited=0
  shift
  "$@" &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    if ((waited >= seconds * 10)); then
      kill "$pid" 2>/dev/null || true
      wait "$pid" 2>/dev/null || true
      return 124
    fi
    sleep 0.1
    waited=$((waited + 1))
  done
  wait "$pid"
}

sha256() { if have sha256sum; then sha256sum; else shasum -a 256; fi | cut -c1-16; }

# go_works tells whether there is a Go that this repository can be built with.
go_works() { have go && (cd "$root" && go env GOVERSION >/dev/null 2>&1); }

# require_go WHAT [WHY [OR]]: WHAT must be built on this machine, because WHY.
require_go() {
  local wanted why=${2:+ ($2)} or=${3:+, or $3}
  go_works && return
  wanted=$(sed -n 's/^go //p' "$root/go.mod")
  have go && die "$1 must be built here$why, and the Go here is older than $wanted: update it$or"
  die "$1 must be built here$why, and there is no Go: install Go $wanted or newer$or"
}

# engine_answers also fails, instead of hanging, on an engine that is stuck.
engine_answers() { have docker && within 10 docker info >/dev/null 2>&1; }
