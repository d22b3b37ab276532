# shellcheck shell=bash
# What breaks the lab on purpose, and mends it. scripts/lab sources it.

break_usage='scripts/lab break region NAME               nobody reaches it, and no connection is closed
scripts/lab break server NAME               it is killed
scripts/lab break path REGION REGION        nothing passes between two regions
scripts/lab break path REGION REGION DELAY  each round trip between them takes longer, by 100ms or so
scripts/lab break headscale                 coordination server and relay are stopped
scripts/lab mend                            undoes it all'

# How long the laptop's Envoy may take to notice what was broken, or mended. A
# relay that comes back is tried anew at growing intervals.
steady_for=6
noticed_within=120

# The label of the containers that hinder a path; its value is the project.
break_label=dev.tailxds.break

break_lab() {
  case ${1:-}/$# in
    region/2) break_region "$2" ;;
    server/2) break_server "$2" ;;
    path/3) break_path "$2" "$3" cut ;;
    path/4) break_path "$2" "$3" slow "$4" ;;
    headscale/1) break_headscale ;;
    /0) echo "$break_usage" ;;
    *) die "that can't be broken; scripts/lab break lists what can" ;;
  esac
}

break_region() {
  local device
  require_region "$1"
  in_state running | grep -qE "^$1-[0-9]+\$" || die "no server of region $1 runs"
  for device in $(sidecars "$1"); do
    if attached "$device"; then docker network disconnect "$(project)_$1" "$(docker compose ps --quiet "$device")"; fi
  done
  await_healthy "$(servers "^$(other "$1")-")"
  broken "Region $1 is cut off: nobody reaches it, and no connection is closed." \
    "curl $(address laptop 10000)     region $(other "$1") answers all"
}

break_server() {
  in_state running | grep -qx -- "$1-server" || die "no server $1 runs; these do: $(in_state running | sed -n 's/-server$//p' | tr '\n' ' ')"
  compose kill "$1-server"
  await_healthy "$(servers)"
  broken "The server $1 is killed. Its Envoy and its place on the tailnet live on." \
    "docker compose exec $1 client http://localhost:10000 100     the others answer for it, even there"
}

break_headscale() {
  in_state running | grep -qx headscale || die "no headscale of the lab's own runs"
  compose stop --timeout 3 headscale
  await_healthy "$(servers '^west-')"
  broken "headscale is stopped. It is the lab's only relay, too, so each region is by itself." \
    "docker compose exec control-plane tailxds status     still serves what it knows; nothing that is healthy was dropped"
}

# break_path A B KIND [DELAY] hinders, at each device of B, what arrives from those of A.
break_path() {
  local from=$1 to=$2 device name addresses=() names=()
  shift 2
  require_region "$from" "$to"
  [[ $from != "$to" ]] || die "a path leads from one region to another"
  for device in $(devices "$from"); do
    mapfile -t -O "${#addresses[@]}" addresses < <(docker compose exec -T "$device" tailscale ip)
  done
  ((${#addresses[@]})) || die "no device of region $from runs"
  unhinder
  for device in $(devices "$to"); do
    name=$(hinder "$device" "$@" "${addresses[@]}")
    names+=("$name")
  done
  ((${#names[@]})) || die "no device of region $to runs"
  await_in_force "${names[@]}"
  if [[ $1 == cut ]]; then
    await_healthy "$(servers '^west-')"
    broken "Nothing passes between $from and $to. Both still reach the control plane." \
      "docker compose exec control-plane tailxds top     each region finds the other unhealthy"
  else
    broken "Each round trip between $from and $to takes $2 longer." \
      "docker compose exec laptop client --rate 50 http://localhost:10000 500     see its latencies, and again with: scripts/lab locality nearest"
  fi
}

# hinder DEVICE ARG... starts what hinders arriving packets, in the device's own network, and prints its name.
hinder() {
  local device=$1 project id
  shift
  id=$(docker compose ps --quiet "$device")
  project=$(docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$id")
  # With Compose's labels it is seen by `docker compose ps` and goes with `docker compose down --remove-orphans`.
  docker run --detach --name "$project-break-$device" --network "container:$id" --user 0 \
    --cap-drop ALL --cap-add NET_ADMIN --security-opt no-new-privileges --read-only \
    --label "$break_label=$project" --label "com.docker.compose.project=$project" \
    --label "com.docker.compose.service=break-$device" --label com.docker.compose.oneoff=False \
    --label com.docker.compose.container-number=1 \
    tailxds/lab-init:dev path "$@" >/dev/null || die "what hinders the path to $device did not start (the lines above say why)"
  echo "$project-break-$device"
}

# await_in_force NAME... waits until each says so, or ends with what the first said that could not.
await_in_force() {
  local name said tries
  for name in "$@"; do
    for tries in {1..300}; do
      said=$(docker logs "$name" 2>&1)
      [[ $said == *"in force"* ]] && break
      if ((tries == 300)) || [[ $(docker inspect --format '{{.State.Running}}' "$name") != true ]]; then
        unhinder
        die "the path can't be hindered on this machine: ${said:-it said nothing}"
      fi
      sleep 0.1
    done
  done
}

# unhinder removes what hinders paths. Each undoes its own rules when it is stopped.
unhinder() {
  local ids
  mapfile -t ids < <(docker ps --all --quiet --filter "label=$break_label=$(project)")
  ((${#ids[@]})) || return 0
  docker stop --time 10 "${ids[@]}" >/dev/null
  docker rm --force "${ids[@]}" >/dev/null
}

mend() {
  local stopped device region
  unhinder
  for region in west east; do
    for device in $(sidecars "$region"); do
      attached "$device" || docker network connect --alias "$device" "$(project)_$region" "$(docker compose ps --quiet "$device")"
    done
  done
  # prepare and keys have done their work.
  mapfile -t stopped < <(in_state exited | grep -vxE 'prepare|keys' || true)
  ((${#stopped[@]} == 0)) || compose start "${stopped[@]}"
  # What comes back may fail its first requests on connections of before, and be ejected for a while.
  await_healthy "$(servers)" "$steady_for"
  say "All is mended: the laptop's Envoy finds $(servers) of $(servers) servers healthy."
}

# broken WHAT WATCH
broken() {
  cat <<EOT
$1
The laptop's Envoy finds $(healthy) of $(docker compose ps --all --services | grep -c -- '-server$') servers healthy.

Watch:  $2
        $(address page 9090)     who finds whom healthy, and who is sent what
Mend:   scripts/lab mend
EOT
}

project() { docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$(docker compose ps --all --quiet | head -1)"; }

# in_state STATE lists the services whose container is running or exited.
in_state() { docker compose ps --all --format '{{.Service}} {{.State}}' | awk -v state="$1" '$2 == state {print $1}'; }

# servers [PATTERN]: how many servers run, or of those that fit it.
servers() { in_state running | grep -- "${1:-.}" | grep -c -- '-server$' || true; }

# sidecars REGION: the devices of its servers. devices REGION: the laptop too, which is in west.
sidecars() { in_state running | grep -E "^$1-[0-9]+\$" || true; }
devices() {
  sidecars "$1"
  if [[ $1 == west ]]; then in_state running | grep -x laptop || true; fi
}

other() { if [[ $1 == west ]]; then echo east; else echo west; fi; }

# attached DEVICE tells whether it is on a network.
attached() {
  [[ $(docker inspect --format '{{len .NetworkSettings.Networks}}' "$(docker compose ps --quiet "$1")") != 0 ]]
}

require_region() {
  local region
  for region in "$@"; do
    [[ $region == west || $region == east ]] || die "there is no region $region; there are west and east"
  done
}

# healthy: how many servers the laptop's Envoy finds healthy.
healthy() {
  docker compose exec -T laptop-envoy /lab/lab-init get http://127.0.0.1:9901/clusters 2>/dev/null |
    grep -c '^server::.*::health_flags::healthy$' || true
}

# await_healthy N [SECONDS] waits until the laptop's Envoy finds that many healthy, and has for so long.
await_healthy() {
  local until=$((SECONDS + noticed_within)) since='' found
  in_state running | grep -qx laptop-envoy || return 0
  while true; do
    found=$(healthy)
    if [[ $found != "$1" ]]; then
      since=''
    elif ((SECONDS - ${since:=$SECONDS} >= ${2:-0})); then
      return 0
    fi
    ((SECONDS < until)) || die "the laptop's Envoy finds $found servers healthy and not $1, $noticed_within s later: docker compose exec control-plane tailxds status says what is known"
    sleep 0.3
  done
}

# address SERVICE PORT: where this machine reaches it, if it is published.
address() {
  local at
  at=$(docker compose port "$1" "$2" 2>/dev/null) || at=
  if [[ -z $at || $at == *:0 ]]; then at=:$2; fi
  echo "http://localhost:${at##*:}"
}
