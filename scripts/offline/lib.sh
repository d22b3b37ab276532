# shellcheck shell=bash
# What the scripts of this folder share, beside what all scripts share. Source it.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# headscale_programs VERSION prints where headscale is.
headscale_programs() { go_tools headscale "$1" "-s -w" ""; }

# tailscale_programs VERSION prints where Tailscale's programs are. They are built as the official images are: with the
# stamps, and with what containerboot needs on Kubernetes.
tailscale_programs() {
  local version=${1#v}
  go_tools tailscale "$1" "-s -w -X tailscale.com/version.shortStamp=$version -X tailscale.com/version.longStamp=$version" ts_kube,ts_package_container
}

# go_tools NAME VERSION LDFLAGS TAGS builds the tools of lab/images/NAME/go.mod, whose
# go.sum pins every module, and prints where they are.
go_tools() {
  local name=$1 version=$2 ldflags=$3 tags=$4 module=$root/lab/images/$1 dir
  dir=$(kept "$name" "$version" "$({ cat "$module/go.mod" "$module/go.sum" && echo "$ldflags $tags"; } | sha256)")
  if [[ ! -d $dir ]]; then
    say "Building $name $version from its Go module (a few minutes, once)."
    mkdir -p "$dir.new.$$"
    (cd "$module" && CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build "${go_flags[@]}" -ldflags "$ldflags" -tags "$tags" -o "$dir.new.$$/" tool >&2) ||
      die "$name $version could not be built (the lines above say why): is the Go module proxy within reach?"
    keep "$dir"
  fi
  echo "$dir"
}
