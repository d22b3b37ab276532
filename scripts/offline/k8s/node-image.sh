#!/usr/bin/env bash
# Makes the image of a Kubernetes node from Debian packages, once, and prints its name. The packages are
# unpacked, not installed: nothing of them runs on this machine.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages=(bash coreutils grep sed mount util-linux procps iproute2 nftables iptables runc tini)

name=tailxds-k8s-node:$(cat "${BASH_SOURCE[0]}" "$k8s_here/node/start" | sha256)

# fetch FOLDER: the packages and all that they depend on, as if nothing were installed.
fetch() {
  mkdir -p "$1/partial"
  touch "$1/nothing-installed"
  apt-get -qq -y --no-install-recommends --download-only \
    -o Dir::State::status="$1/nothing-installed" \
    -o Dir::Cache::archives="$1" \
    -o APT::Sandbox::User=root \
    -o Debug::NoLocking=1 \
    install "${packages[@]}" >"$1/apt.log" 2>&1
}

unpack() {
  local debs=$1 root=$2
  # Debian keeps programs and libraries below /usr; the old places are links to them.
  for place in bin sbin lib lib64; do
    mkdir -p "$root/usr/$place"
    ln -s "usr/$place" "$root/$place"
  done
  for deb in "$debs"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root"
  done
  rm -rf "$root"/usr/share/{doc,man,locale,info} "$root"/var/cache
  mkdir -p "$root"/{etc/cni/net.d,opt/cni/bin,proc,sys,dev,run,tmp,node}
  ln -sf xtables-nft-multi "$root/usr/sbin/iptables"
  ln -sf xtables-nft-multi "$root/usr/sbin/ip6tables"
  install -m 0755 "$k8s_here/node/start" "$root/node/start"
  printf 'root:x:0:0:root:/:/bin/bash\n' >"$root/etc/passwd"
  printf 'root:x:0:\n' >"$root/etc/group"
}

main() {
  if docker image inspect "$name" >/dev/null 2>&1; then
    echo "$name"
    return
  fi
  have apt-get || die "there is no apt-get: the node image is made of Debian packages; set KUBECONFIG_WEST and KUBECONFIG_EAST to use clusters of your own"
  have dpkg-deb || die "there is no dpkg-deb: install dpkg"
  say "Making the image of a Kubernetes node."
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/debs" "$work/root"
  fetch "$work/debs" || { apt-get -qq update && fetch "$work/debs"; } ||
    die "apt-get could not download the node's packages: $(tail -n 1 "$work/debs/apt.log")"
  unpack "$work/debs" "$work/root"
  tar -C "$work/root" -c . | docker import -c 'ENTRYPOINT ["/usr/bin/tini","--","/node/start"]' - "$name" >/dev/null
  echo "$name"
}

main
