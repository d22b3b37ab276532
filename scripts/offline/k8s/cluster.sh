#!/usr/bin/env bash
# One-node Kubernetes clusters in containers.
#
#   cluster.sh up NAME BIN IMAGES FOLDER   starts one; its kubeconfig is FOLDER/kubeconfig
#   cluster.sh wait NAME BIN FOLDER        waits until its node is ready
#   cluster.sh logs NAME FOLDER            copies what the node's parts logged into FOLDER
#   cluster.sh down PREFIX                 removes every container and network whose project is PREFIX
#
# NAME is PREFIX-west or PREFIX-east. Everything carries the label tailxds.k8s=PREFIX, so nothing that belongs to
# another run is ever touched.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

label=tailxds.k8s

# sign NAME SUBJECT [SAN]: a key and a certificate by the cluster's own authority.
sign() {
  local name=$1 subject=$2 san=${3:-}
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$subject" \
    -keyout "$name.key" -out "$name.csr" 2>/dev/null
  openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out "$name.crt" \
    -extfile <(printf 'extendedKeyUsage=serverAuth,clientAuth\n%s' "${san:+subjectAltName=$san}") 2>/dev/null
}

make_certificates() {
  local folder=$1 address=$2
  (
    cd "$folder" || exit
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=cluster -days 2 \
      -keyout ca.key -out ca.crt 2>/dev/null
    sign apiserver /CN=kube-apiserver "IP:$address,IP:10.96.0.1,DNS:kubernetes.default.svc,DNS:kubernetes"
    sign admin /O=system:masters/CN=admin
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    touch ready
  )
}

write_kubeconfig() {
  local folder=$1 address=$2
  cat >"$folder/kubeconfig" <<-EOF
		apiVersion: v1
		kind: Config
		clusters:
		- name: cluster
		  cluster:
		    server: https://$address:6443
		    certificate-authority-data: $(base64 -w0 "$folder/pki/ca.crt")
		users:
		- name: admin
		  user:
		    client-certificate-data: $(base64 -w0 "$folder/pki/admin.crt")
		    client-key-data: $(base64 -w0 "$folder/pki/admin.key")
		contexts:
		- name: cluster
		  context: {cluster: cluster, user: admin}
		current-context: cluster
	EOF
}

# start_node NAME ...: not --privileged, which asks for capabilities that a machine inside a virtual machine or
# a container may lack; this is the list that a kubelet and containerd really need.
start_node() {
  local name=$1 bin=$2 images=$3 folder=$4 image devices=()
  image=$("$k8s_here/node-image.sh")
  for device in /dev/net/tun /dev/kmsg /dev/fuse; do
    if [[ -e $device ]]; then
      devices+=(--device "$device")
    fi
  done
  docker run -d --name "$name" --hostname "$name" --label "$label=${name%-*}" --network "$name" \
    --cap-add ALL --cap-drop SYS_RESOURCE \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    --device-cgroup-rule 'a *:* rwm' "${devices[@]}" --cgroupns private \
    --tmpfs /run:exec --tmpfs /tmp:exec \
    -v /var/lib/containerd -v /var/lib/kubelet -v /var/lib/etcd \
    -v "$bin:/opt/k8s:ro" -v "$folder/pki:/pki:ro" -v "$images:/images.tar:ro" \
    "$image" >/dev/null
}

up() {
  local name=$1 bin=$2 images=$3 folder=$4 address
  mkdir -p "$folder/pki"
  docker network create --internal --label "$label=${name%-*}" "$name" >/dev/null
  start_node "$name" "$bin" "$images" "$folder"
  address=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$name")
  make_certificates "$folder/pki" "$address"
  write_kubeconfig "$folder" "$address"
}

wait_ready() {
  local name=$1 bin=$2 folder=$3 start=$SECONDS
  while [[ $("$bin/kubectl" --kubeconfig "$folder/kubeconfig" --request-timeout 5s get nodes \
    -o 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}' 2>/dev/null) != True ]]; do
    if ((SECONDS - start > 180)); then
      die "$name has no ready node after three minutes"
    fi
    [[ $(docker inspect -f '{{.State.Running}}' "$name") == true ]] ||
      die "$name ended: $(docker logs --tail 1 "$name" 2>&1)"
    sleep 0.3
  done
  say "The cluster $name is ready."
}

logs() {
  local name=$1 folder=$2
  mkdir -p "$folder"
  docker logs "$name" >"$folder/node.log" 2>&1 || true
  docker cp "$name:/var/log/k8s/." "$folder" >/dev/null 2>&1 || true
  docker cp "$name:/var/log/pods" "$folder/pods" >/dev/null 2>&1 || true
}

# down: until nothing is left, since a container may be on its way out already, or another may remove the same.
down() {
  local said
  for _ in {1..100}; do
    said=$(remove "$1" 2>&1) && return
    sleep 0.2
  done
  die "the clusters of $1 can't be removed: $said"
}

remove() {
  local ids
  ids=$(docker ps -aq --filter "label=$label=$1") || return
  # shellcheck disable=SC2086 # a list of ids
  [[ -z $ids ]] || docker rm -fv $ids >/dev/null || return
  ids=$(docker network ls -q --filter "label=$label=$1") || return
  # shellcheck disable=SC2086
  [[ -z $ids ]] || docker network rm $ids >/dev/null
}

command=$1
shift
case $command in
up) up "$@" ;;
wait) wait_ready "$@" ;;
logs) logs "$@" ;;
down) down "$@" ;;
*) die "unknown command $command: up, wait, logs or down" ;;
esac
