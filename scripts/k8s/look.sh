#!/usr/bin/env bash
# look.sh KUBECONFIG KUBECTL FOLDER: what a cluster, its Envoys and its tailnet devices say, for the bundle of a failed run.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

kubeconfig=$1 kubectl=$2 folder=$3
k() { "$kubectl" --kubeconfig "$kubeconfig" --request-timeout 10s "$@"; }

# Envoy's admin page is on loopback only; a port-forward ends there.
look_at_envoy() {
  local namespace=$1 pod=$2 port forward
  coproc FORWARD { k port-forward -n "$namespace" "$pod" :9901 2>/dev/null; }
  forward=$FORWARD_PID
  read -r -t 10 -u "${FORWARD[0]}" line || true
  port=$(sed -n 's/.*127.0.0.1:\([0-9]*\) .*/\1/p' <<<"${line:-}")
  if [[ -n $port ]]; then
    curl -s -m 5 "http://127.0.0.1:$port/config_dump?include_eds" >"$folder/$pod.config_dump.json" || true
    curl -s -m 5 "http://127.0.0.1:$port/clusters" >"$folder/$pod.clusters.txt" || true
  fi
  kill "$forward" 2>/dev/null || true
  wait "$forward" 2>/dev/null || true
}

mkdir -p "$folder"
k get all,configmaps,events,endpointslices -A -o wide >"$folder/objects.txt" 2>&1 || true
k describe pods -A >"$folder/pods.txt" 2>&1 || true
k get pods -A -l app.kubernetes.io/name=ts-envoy-server -o 'jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{"\n"}{end}' |
  while read -r namespace pod; do
    k exec -n "$namespace" "$pod" -c tailscale -- tailscale status >"$folder/$pod.tailscale.txt" 2>&1 </dev/null || true
    look_at_envoy "$namespace" "$pod" </dev/null
  done
