#!/usr/bin/env bash
# Builds the programs that a Kubernetes node is made of, each from its own small module in build/, into
# the cache folder, and prints the folder that holds them all. A folder is named by the hash of all that decides
# its content, so a second run builds nothing and an upgrade never meets an old binary.
#
#   build.sh           builds all, prints one folder with every program
#   build.sh MODULE…   builds these, prints a folder for each
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

require_go "Kubernetes"

# Without these, kubectl, Helm and every chart with a kubeVersion see version 0.0.0.
kubernetes_version=v1.36.3
version_flags() {
  local minor=${kubernetes_version#v1.}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf -- '-X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s ' \
      "$package" "$kubernetes_version" "$package" "$package" "${minor%%.*}"
  done
}

# arguments MODULE: how it is built, and what: the module's tools, or its own main.
arguments() {
  case $1 in
  kubernetes) echo "-ldflags=-s -w $(version_flags)" tool ;;
  coredns | pause) echo "-ldflags=-s -w" . ;;
  *) echo "-ldflags=-s -w" tool ;;
  esac
}

compile() {
  local module=$1 output=$2 args
  args=$(arguments "$module")
  (
    cd "$k8s_here/build/$module" || exit
    CGO_ENABLED=0 GOFLAGS=-buildvcs=false nice -n "${K8S_BUILD_NICE:-0}" \
      go build -trimpath "${args% *}" -o "$output/" "${args##* }"
  ) || return
  # A program is named after its package's folder, which is not what everybody calls this one.
  if [[ $module == etcd ]]; then
    mv "$output/server" "$output/etcd"
  fi
}

module_key() {
  local folder=$k8s_here/build/$1
  {
    # Where the module lies decides nothing.
    find "$folder" -type f | LC_ALL=C sort | xargs cat | grep -v '^module '
    arguments "$1"
    go env GOVERSION GOARCH
  } | sha256
}

build() {
  local module=$1 kept start=$SECONDS
  kept=$k8s_cache/$module-$(module_key "$module")
  if [[ ! -d $kept ]]; then
    say "Building $module from its Go modules."
    local fresh=$kept.new.$$
    rm -rf "$fresh"
    mkdir -p "$fresh"
    # Said here, since errexit does not hold where this is called.
    compile "$module" "$fresh" || { rm -rf "$fresh" && die "$module could not be built (the lines above say why)"; }
    # A rename is the last step: a build that was stopped half-way is never taken for a whole one.
    mv -T "$fresh" "$kept" 2>/dev/null || rm -rf "$fresh"
    say "Built $module in $((SECONDS - start)) s."
  fi
  echo "$kept"
}

# One folder with a link for every program, so that a node mounts one path.
gather() {
  local all all_key
  all_key=$(printf '%s\n' "$@" | sha256)
  all=$k8s_cache/bin-$all_key
  if [[ ! -d $all ]]; then
    local fresh=$all.new.$$
    mkdir -p "$fresh"
    for folder in "$@"; do
      ln "$folder"/* "$fresh/" 2>/dev/null || cp "$folder"/* "$fresh/"
    done
    mv -T "$fresh" "$all" 2>/dev/null || rm -rf "$fresh"
  fi
  echo "$all"
}

main() {
  mkdir -p "$k8s_cache"
  local modules=(kubernetes etcd containerd cni helm coredns pause) folders=() folder
  if (($#)); then
    modules=("$@")
  fi
  for module in "${modules[@]}"; do
    folder=$(build "$module")
    folders+=("$folder")
  done
  if (($#)); then
    printf '%s\n' "${folders[@]}"
  else
    gather "${folders[@]}"
  fi
}

main "$@"
