# containerd and the kubelet in one private mount namespace, so that their mounts, the folders with
# fixed names and the sysctls that a kubelet rewrites never reach the host.
# shellcheck shell=bash

# On the host these are only empty mount points, removed again when the last cluster goes down.
MOUNT_POINTS=(/var/lib/kubelet /var/lib/cni /run/containerd)

start_node() {
  # What is left of a node cannot use the mount namespace of a new one.
  if ! alive holder || ! alive containerd; then stop_node; fi
  start_holder
  start_containerd
  start_kubelet
}

in_node() { nsenter --mount="/proc/$(pid_of holder)/ns/mnt" "$@"; }

ctr() { in_node "$TOOLS/root/usr/bin/ctr" --address "$RUN/containerd.sock" --namespace k8s.io "$@"; }

# start_holder: a sleeping process that keeps the mount namespace.
start_holder() {
  alive holder && return
  local dir
  lock_shared
  for dir in "${MOUNT_POINTS[@]}"; do
    [ -d "$dir" ] || { mkdir "$dir" && echo "$dir" >>"$CACHE/made-mount-points"; }
  done
  spawn holder unshare --mount --propagation private "$TOOLS/root/bin/busybox" sleep 2147483647
  until_true 10 holder_runs || log_and_die "holder did not start"
  in_node "$BASH" -euo pipefail "$LIB/node-mounts.sh" "$RUN" "${MOUNT_POINTS[@]}" /var/log
  unlock_shared
}

holder_runs() { [ "$(readlink "/proc/$(pid_of holder)/exe")" = "$TOOLS/root/bin/busybox" ]; }

start_containerd() {
  local image plugin=bridge
  alive containerd && return
  if [ "$SERVICES" = yes ]; then plugin=ptp; fi
  mkdir -p "$RUN/cni"
  render config/containerd.toml >"$RUN/containerd.toml"
  render config/$plugin.conflist >"$RUN/cni/10-mykube.conflist"
  rm -f "$RUN"/containerd.sock*
  spawn containerd "${INSIDE[@]}" nsenter --mount="/proc/$(pid_of holder)/ns/mnt" \
    env PATH="$TOOLS/root/usr/bin:$TOOLS/root/usr/sbin:$PATH" \
    "$TOOLS/root/usr/bin/containerd" --config "$RUN/containerd.toml"
  await containerd 30 ctr version
  for image in pause busybox; do ctr images import "$TOOLS/images/$image.tar" >/dev/null; done
}

start_kubelet() {
  local address=(--address=127.0.0.1)
  alive kubelet && return
  if [ "$SERVICES" = yes ]; then address=(--address=0.0.0.0 --node-ip="$NODE_ADDRESS"); fi
  # The node of an earlier run would still count as Ready.
  kube delete node "$NODE" --ignore-not-found >/dev/null
  echo '# none' >"$RUN/resolv.conf"
  {
    render config/kubelet.yaml
    printf '%s\n' "${KUBELET_SETTINGS[@]}"
  } >"$RUN/kubelet.yaml"
  spawn kubelet "${INSIDE[@]}" nsenter --mount="/proc/$(pid_of holder)/ns/mnt" \
    "$KUBERNETES/kubelet" --config="$RUN/kubelet.yaml" --kubeconfig="$STATE/kubelet.kubeconfig" \
    --hostname-override="$NODE" --root-dir="$RUN/kubelet" --cert-dir="$RUN/kubelet-certs" \
    --container-runtime-endpoint="unix://$RUN/containerd.sock" "${address[@]}" "${REMOTE_RUNTIME[@]}"
  await kubelet 60 listens "$KUBELET_PORT"
}

node_ready() {
  [ "$(kube get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]
}

# render FILE: a template with its @NAMES@ filled in.
render() {
  sed -e "s#@RUN@#$RUN#g; s#@STATE@#$STATE#g; s#@TOOLS@#$TOOLS#g; s#@IMAGE_PREFIX@#$IMAGE_PREFIX#g" \
    -e "s#@KUBELET_PORT@#$KUBELET_PORT#g; s#@BRIDGE@#${BRIDGE:-}#g; s#@SUBNET@#${SUBNET:-}#g" \
    -e "s#@POD_SUBNET@#$POD_SUBNET#g; s#@METRICS_SERVER@#${METRICS_SERVER:-}#g" "$LIB/$1"
}

stop_node() {
  local ids
  stop kubelet 10
  ids=$(ls "$RUN/containerd/io.containerd.runtime.v2.task/k8s.io" 2>/dev/null || true)
  if alive containerd && alive holder; then end_containers; fi
  stop containerd 10
  end_shims
  stop holder 2
  remove_cgroups "$ids"
  remove_mount_points
}

end_containers() {
  local id
  for id in $(ctr tasks list --quiet); do ctr tasks kill --signal SIGKILL --all "$id" >/dev/null 2>&1 || true; done
  for id in $(ctr tasks list --quiet); do ctr tasks delete --force "$id" >/dev/null 2>&1 || true; done
}

# end_shims: containerd's helpers outlive it. Ours name our socket on their command line.
end_shims() {
  local proc pid child
  for proc in /proc/[0-9]*; do
    [[ $(readlink "$proc/exe" 2>/dev/null) == "$CACHE"/*/containerd-shim-runc-v2 ]] || continue
    tr '\0' '\n' <"$proc/cmdline" 2>/dev/null | grep -qxF "$RUN/containerd.sock" || continue
    pid=${proc#/proc/}
    # shellcheck disable=SC2013
    for child in $(cat "$proc"/task/*/children 2>/dev/null); do kill -9 "$child" 2>/dev/null || true; done
    kill -9 "$pid" 2>/dev/null || true
  done
}

# remove_cgroups IDS: the groups of these containers, and their parents where nothing else is left.
remove_cgroups() {
  local id dir
  for dir in /sys/fs/cgroup/k8s.io /sys/fs/cgroup/*/k8s.io; do
    [ -d "$dir" ] || continue
    for id in $1; do
      [ ! -d "$dir/$id" ] || until_true 3 find "$dir/$id" -depth -type d -exec rmdir {} + || true
    done
    rmdir "$dir" 2>/dev/null || true
  done
}

remove_mount_points() {
  local record=$CACHE/made-mount-points dir
  [ -f "$record" ] || return 0
  lock_shared
  while read -r dir; do
    # Removing a mount point would take the mount away from another cluster that still runs.
    if grep -qF " $dir " /proc/[0-9]*/mountinfo 2>/dev/null; then
      echo "$dir"
    else
      rmdir "$dir" 2>/dev/null || true
    fi
  done <"$record" >"$record.new"
  mv "$record.new" "$record"
  unlock_shared
}
