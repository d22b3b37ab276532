# shellcheck shell=bash disable=SC2034
# Shared by the scripts in this folder: where built things are kept, and how they are named.
# Source it; it runs nothing.

k8s_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
k8s_cache=${TAILXDS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tailxds}/k8s

say() { printf '%s\n' "k8s: $*" >&2; }

die() {
	say "$*"
	exit 1
}

need() {
	command -v "$1" >/dev/null || die "$1 is missing: $2"
}

# key FILE... names a content: the same files give the same key, on any machine.
key() {
	cat "$@" | sha256sum | cut -c1-16
}
