#!/usr/bin/env bash
# A few kubectl commands, shown as they run. Uses the KUBECONFIG it is given.
set -euo pipefail
image=${MYKUBE_CLUSTER_IMAGE:-busybox:1}
namespace=mykube-tour-$$

run() {
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

trap 'kubectl delete namespace "$namespace" --wait=false >/dev/null 2>&1 || true' EXIT
run kubectl cluster-info
run kubectl get nodes
run kubectl create namespace "$namespace"
for _ in $(seq 50); do kubectl -n "$namespace" get serviceaccount default >/dev/null 2>&1 && break; sleep 0.2; done
run kubectl -n "$namespace" run hello --image="$image" --restart=Never -- sh -c 'echo hello from the pod; sleep 600'
run kubectl -n "$namespace" wait --for=condition=Ready pod/hello --timeout=60s
run kubectl -n "$namespace" logs hello
run kubectl -n "$namespace" exec hello -- uname -a
printf '\n\033[1m$ head -c 5000000 /dev/zero | kubectl exec -i hello -- wc -c\033[0m\n'
head -c 5000000 /dev/zero | kubectl -n "$namespace" exec -i hello -- wc -c
printf '\nkubectl works through the relay, which has seen none of it.\n'
