# The ports of a cluster, and the bridge of one without services. They are chosen when it starts and recorded in its state.
# shellcheck shell=bash

load_addresses() {
  # shellcheck source=/dev/null
  if [ -r "$STATE/addresses" ]; then . "$STATE/addresses"; fi
}

# choose_addresses: keeps what is recorded and free, and picks the rest anew.
choose_addresses() {
  load_addresses
  remove_bridge
  {
    choose_ports
    if [ "$SERVICES" = no ]; then choose_bridge; fi
  } >"$STATE/addresses.new"
  mv "$STATE/addresses.new" "$STATE/addresses"
  load_addresses
}

choose_ports() {
  local name port offset=0 chosen=' '
  for name in API_PORT ETCD_PORT ETCD_PEER_PORT KUBELET_PORT KCM_PORT SCHEDULER_PORT; do
    port=${!name:-$((PORT_BASE + offset))}
    while port_open "$port" || [[ $chosen == *" $port "* ]]; do port=$((port + 10)); done
    chosen+="$port "
    echo "$name=$port"
    offset=$((offset + 1))
  done
}

# choose_bridge: makes the bridge too, so that no other cluster chooses the same one.
choose_bridge() {
  local number=0
  until ip link add name "mykube$number" type bridge 2>/dev/null; do
    number=$((number + 1))
    [ $number -lt 50 ] || die "cannot make a network bridge; see what 'ip link add name mykube99 type bridge' says"
  done
  echo "BRIDGE=mykube$number"
  echo "SUBNET=10.88.$((77 + number)).0/24"
}

# remove_bridge: the recorded bridge, unless pods hang on it, which then are another cluster's.
remove_bridge() {
  local ports=/sys/class/net/${BRIDGE:-none}/brif
  if [ -d "$ports" ] && [ -z "$(ls "$ports")" ]; then
    ip link delete "$BRIDGE"
    say "bridge $BRIDGE removed"
  fi
}
