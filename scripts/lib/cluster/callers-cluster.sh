# The commands when MYKUBE_E2E_KUBECONFIG names a cluster of the caller's: it is used, never changed.
# shellcheck shell=bash

[ -r "$MYKUBE_E2E_KUBECONFIG" ] || die "MYKUBE_E2E_KUBECONFIG: cannot read $MYKUBE_E2E_KUBECONFIG"
FLAVOUR=callers
CALLERS=$(realpath "$MYKUBE_E2E_KUBECONFIG")
CALLERS_IMAGE=${MYKUBE_E2E_IMAGE:-busybox:1}

use_kubectl() {
  if [ -x "$KUBECTL" ]; then PATH=$KUBECTL_DIR/bin:$PATH; fi
  command -v kubectl >/dev/null || die "no kubectl; run scripts/cluster up, which fetches one"
}

cluster_up() {
  . "$LIB/prerequisites.sh"
  lock_cluster
  lock_shared
  ensure_kubectl
  say "using the cluster of $CALLERS; nothing is started"
}

cluster_down() { say "the cluster of $CALLERS is not ours; nothing is stopped"; }

cluster_status() {
  use_kubectl
  if kubectl --kubeconfig "$CALLERS" --request-timeout=10s get --raw=/readyz >/dev/null; then
    echo "caller's cluster  up"
  else
    echo "caller's cluster  down"
    exit 3
  fi
}

cluster_env() {
  use_kubectl
  printf 'export KUBECONFIG=%q\n' "$CALLERS"
  # shellcheck disable=SC2016
  printf 'export PATH=%q:"$PATH"\n' "$(dirname "$(command -v kubectl)")"
  printf 'export MYKUBE_CLUSTER_IMAGE=%q\n' "$CALLERS_IMAGE"
  printf 'unset MYKUBE_CLUSTER_TOKEN_KUBECONFIG MYKUBE_CLUSTER_DIR MYKUBE_CLUSTER_NODE_ADDRESS MYKUBE_CLUSTER_API_DOWN MYKUBE_CLUSTER_AUDIT_LOG\n'
}

cluster_load() { die "the cluster of $CALLERS is not ours; load its images your way"; }

cluster_door() { die "the cluster of $CALLERS is not ours; its pods reach what its network lets them reach"; }

cluster_smoke() {
  use_kubectl
  export KUBECONFIG=${MYKUBE_SMOKE_KUBECONFIG:-$CALLERS} MYKUBE_CLUSTER_IMAGE=$CALLERS_IMAGE
  unset MYKUBE_CLUSTER_API_DOWN
  exec "$LIB/smoke.sh"
}
