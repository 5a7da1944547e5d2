# The network namespace of a cluster with services. The whole cluster lives in it, so that kube-proxy's
# rules, the pods' routes and their sysctls never reach the host, and nothing can be routed out: there is
# no way out of the namespace, except for the API server's second listening socket and the doors.
# shellcheck shell=bash

SERVICE_SUBNET=10.43.0.0/24
POD_SUBNET=10.88.0.0/24
NODE_ADDRESS=10.88.0.1

# In front of a command: runs it where the cluster's components run.
INSIDE=()

# start_network: a sleeping process that keeps the namespace. Without services this is the host's own.
start_network() {
  [ "$SERVICES" = yes ] || return 0
  if ! alive network; then
    spawn network unshare --net "$TOOLS/root/bin/busybox" sleep 2147483647
    until_true 10 network_runs || log_and_die "network did not start"
    find_network
    "${INSIDE[@]}" "$BASH" -euo pipefail "$LIB/network-setup.sh" $NODE_ADDRESS $SERVICE_SUBNET
  fi
  find_network
}

network_runs() { [ "$(readlink "/proc/$(pid_of network)/exe")" = "$TOOLS/root/bin/busybox" ]; }

find_network() { INSIDE=(nsenter --net="/proc/$(pid_of network)/ns/net"); }

stop_network() { stop network 2; }

# listens PORT: whether something listens on 127.0.0.1 where the cluster's components run.
# shellcheck disable=SC2016
listens() { "${INSIDE[@]}" "$BASH" -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"' - "$1" 2>/dev/null; }

# open_door PORT: until it is ended, pods reach this machine's 127.0.0.1:PORT at the node's address.
open_door() {
  find_network
  # This process enters the cluster's network itself, so the way back is kept open.
  exec 7</proc/self/ns/net
  exec "${INSIDE[@]}" python3 "$LIB/listen.py" "$NODE_ADDRESS:$1" \
    nsenter --net=/proc/self/fd/7 python3 "$LIB/door.py" "127.0.0.1:$1"
}
