# The commands for the cluster that this script runs itself.
# shellcheck shell=bash

COMPONENTS=(etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet)
if [ "$SERVICES" = yes ]; then COMPONENTS+=(kube-proxy); fi

# shellcheck source=prerequisites.sh
. "$LIB/prerequisites.sh"
# shellcheck source=addresses.sh
. "$LIB/addresses.sh"
# shellcheck source=pki.sh
. "$LIB/pki.sh"
# shellcheck source=network.sh
. "$LIB/network.sh"
# shellcheck source=control-plane.sh
. "$LIB/control-plane.sh"
# shellcheck source=node.sh
. "$LIB/node.sh"
# shellcheck source=services.sh
. "$LIB/services.sh"

cluster_up() {
  need_root
  lock_cluster
  lock_shared
  ensure_packages openssl=openssl ip=iproute2 python3=python3 nsenter=util-linux
  if [ "$SERVICES" = yes ]; then ensure_packages nft=nftables; fi
  ensure_kubectl
  # shellcheck source=build-tools.sh
  . "$LIB/build-tools.sh"
  ensure_tools
  unlock_shared
  ensure_kubernetes
  # shellcheck source=build-metrics-server.sh
  . "$LIB/build-metrics-server.sh"
  ensure_metrics_server

  mkdir -p "$STATE/logs"
  chmod 700 "$STATE"
  # What is left of a cluster cannot use the network of a new one.
  if [ "$SERVICES" = yes ] && ! alive network; then stop_everything; fi
  if ! any_alive; then
    mkdir -p "$RUN"
    stop_node
    rm -rf "$RUN"
    mkdir "$RUN"
    choose_addresses
    ensure_pki
    write_kubeconfigs
  fi
  load_addresses
  start_network
  start_control_plane
  start_node
  allow_dev
  start_services
  until_true 60 node_ready || log_and_die "kubelet did not make its node Ready"
  until_true 30 kube get serviceaccount default || log_and_die "kube-controller-manager made no default service account"
  await_metrics_server
  say "Kubernetes $VERSION is up; next: eval \"\$(scripts/cluster env${OLD_OPTION})\""
}

ensure_kubernetes() {
  [ -d "$KUBERNETES" ] && return
  # shellcheck source=build-current.sh
  . "$LIB/build-$FLAVOUR.sh"
  into_cache "$KUBERNETES" build_kubernetes
}

any_alive() {
  local name
  for name in "${COMPONENTS[@]}" holder network; do
    if alive "$name"; then return 0; fi
  done
  return 1
}

cluster_down() {
  [ -d "$STATE" ] || { say "there is no $FLAVOUR cluster"; return; }
  need_root
  lock_cluster
  mkdir -p "$RUN"
  stop_everything
  load_addresses
  remove_bridge
  rm -rf "$RUN"
  if [ "$wipe" = yes ]; then
    rm -rf "$STATE"
    say "state wiped; the binaries stay in $CACHE"
  fi
}

stop_everything() {
  stop_services
  stop_node
  stop_control_plane
  stop_network
}

cluster_status() {
  local name pid code=0
  for name in "${COMPONENTS[@]}"; do
    if pid=$(pid_of "$name"); then
      printf '%-24s up (pid %s)\n' "$name" "$pid"
    else
      printf '%-24s down\n' "$name"
      code=3
    fi
  done
  if [ $code = 0 ] && node_ready 2>/dev/null; then
    printf '%-24s Ready\n' "node $NODE"
  else
    printf '%-24s not Ready\n' "node $NODE"
    code=3
  fi
  return $code
}

cluster_env() {
  [ -r "$STATE/admin.kubeconfig" ] || die "there is no $FLAVOUR cluster; run scripts/cluster up$OLD_OPTION first"
  printf 'export KUBECONFIG=%q\n' "$STATE/admin.kubeconfig"
  # shellcheck disable=SC2016
  printf 'export PATH=%q:"$PATH"\n' "$KUBECTL_DIR/bin"
  printf 'export MYKUBE_CLUSTER_TOKEN_KUBECONFIG=%q\n' "$STATE/dev.kubeconfig"
  printf 'export MYKUBE_CLUSTER_IMAGE=%q\n' "$IMAGE_PREFIX/busybox:1"
  printf 'export MYKUBE_CLUSTER_DIR=%q\n' "$STATE"
  printf 'export MYKUBE_CLUSTER_AUDIT_LOG=%q\n' "$AUDIT_LOG"
  printf 'export MYKUBE_CLUSTER_API_DOWN=%q\n' "$LIB/manifests/api-down.yaml"
  if [ "$SERVICES" = yes ]; then
    printf 'export MYKUBE_CLUSTER_NODE_ADDRESS=%q\n' "$NODE_ADDRESS"
  else
    printf 'unset MYKUBE_CLUSTER_NODE_ADDRESS\n'
  fi
}

cluster_smoke() {
  [ -r "$STATE/admin.kubeconfig" ] || die "there is no $FLAVOUR cluster; run scripts/cluster up$OLD_OPTION first"
  export KUBECONFIG=${MYKUBE_SMOKE_KUBECONFIG:-$STATE/admin.kubeconfig}
  export PATH=$KUBECTL_DIR/bin:$PATH MYKUBE_CLUSTER_IMAGE=$IMAGE_PREFIX/busybox:1
  export MYKUBE_CLUSTER_API_DOWN=$LIB/manifests/api-down.yaml
  exec "$LIB/smoke.sh"
}

cluster_door() {
  need_root
  [ "$SERVICES" = yes ] || die "door: pods of the old cluster have no way out of their bridge"
  alive network || die "there is no $FLAVOUR cluster; run scripts/cluster up first"
  open_door "$ARGUMENT"
}

cluster_load() {
  need_root
  alive containerd || die "there is no $FLAVOUR cluster; run scripts/cluster up$OLD_OPTION first"
  ctr images import "$(realpath "$ARGUMENT")"
}
