#!/usr/bin/env bash
# Every kind of request that kubectl makes of a cluster, one check each. KUBECONFIG chooses the way
# to the cluster, so the same checks run through a tunnel. MYKUBE_CLUSTER_IMAGE is a busybox image.
set -uo pipefail

: "${KUBECONFIG:?set KUBECONFIG, or run scripts/cluster smoke}"
IMAGE=${MYKUBE_CLUSTER_IMAGE:?set MYKUBE_CLUSTER_IMAGE, or run scripts/cluster smoke}
HERE=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
POD=smoke-$$
WORK=$(mktemp -d)
passed=0 failed=0 skipped=0
export POD IMAGE WORK

tidy() {
  kubectl delete --ignore-not-found --wait=false --grace-period=1 "deployment/d-$POD" "pod/$POD" "pod/$POD-b" \
    "configmap/w-$POD" >/dev/null 2>&1
  rm -rf "$WORK"
}
trap tidy EXIT

# check NAME COMMAND...
check() {
  local name=$1 started=$EPOCHREALTIME
  shift
  if "$@" >"$WORK/output" 2>&1 </dev/null; then
    passed=$((passed + 1))
    printf 'ok    %-14s %5d ms\n' "$name" $((${EPOCHREALTIME/./} / 1000 - ${started/./} / 1000))
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n' "$name"
    head -n 8 "$WORK/output" | sed 's/^/      /'
  fi
}

run_pod() {
  # shellcheck disable=SC2016
  kubectl run "$POD" --image="$IMAGE" --restart=Never -- sh -c '
    mkdir /www; echo hello >/www/index.html; httpd -p 8080 -h /www
    (echod || nc -lk -p 9000 -e cat) &
    i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done'
}

wait_for_pod() { kubectl wait --for=condition=Ready "pod/$POD" --timeout=60s; }

exec_output() { [ "$(kubectl exec "$POD" -- echo hi)" = hi ]; }

exec_exit_code() {
  kubectl exec "$POD" -- sh -c 'exit 7'
  [ $? = 7 ]
}

exec_stdin() { [ "$(head -c 5000000 /dev/zero | kubectl exec -i "$POD" -- wc -c)" = 5000000 ]; }

exec_spdy() { [ "$(KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl exec "$POD" -- echo hi)" = hi ]; }

exec_terminal() { python3 "$HERE/smoke_terminal.py" "$POD"; }

logs_follow() { [ "$(timeout 3 kubectl logs -f --tail=1 "$POD" | wc -l)" -gt 8 ]; }

copy_in() {
  head -c 8000000 /dev/urandom >"$WORK/a"
  kubectl cp "$WORK/a" "$POD:/tmp/a" &&
    [ "$(kubectl exec "$POD" -- sha256sum /tmp/a | cut -c1-64)" = "$(sha256sum "$WORK/a" | cut -c1-64)" ]
}

copy_out() { kubectl cp "$POD:/tmp/a" "$WORK/b" && cmp "$WORK/a" "$WORK/b"; }

port_forward() { python3 "$HERE/smoke_port_forward.py" "$POD"; }

attach() { [ "$(timeout 3 kubectl attach "$POD" | grep -c line)" -gt 4 ]; }

debug() {
  local attempt
  kubectl debug "$POD" --image="$IMAGE" --profile=general --target="$POD" -c dbg -- sleep 20 || return
  for attempt in $(seq 40); do
    if kubectl exec "$POD" -c dbg -- ps | grep -q httpd; then return; fi
    echo "attempt $attempt"
    sleep 0.5
  done
  return 1
}

run_interactive() {
  # shellcheck disable=SC2016
  echo 'echo sum=$((2+3))' | kubectl run "$POD-b" --rm -i --restart=Never --image="$IMAGE" -- sh | grep sum=5
}

watch_events() {
  timeout 4 kubectl get configmap -w --output-watch-events >"$WORK/watch" &
  sleep 1.5
  kubectl create configmap "w-$POD" --from-literal=a=b && kubectl delete configmap "w-$POD"
  wait
  grep DELETED "$WORK/watch"
}

apply() {
  kubectl apply -f - <<MANIFEST && kubectl rollout status "deployment/d-$POD" --timeout=60s
apiVersion: apps/v1
kind: Deployment
metadata: {name: d-$POD}
spec:
  replicas: 2
  selector: {matchLabels: {app: d-$POD}}
  template:
    metadata: {labels: {app: d-$POD}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: "$IMAGE", command: [sleep, "1000"]}]
MANIFEST
}

delete() { kubectl delete --wait=true --grace-period=1 "deployment/d-$POD" "pod/$POD"; }

# has_ephemeral_containers: kubectl debug needs them; servers before 1.23 keep them off.
has_ephemeral_containers() { kubectl get --raw /api/v1 | grep -q '"pods/ephemeralcontainers"'; }

check run run_pod
check wait wait_for_pod
check exec exec_output
check exec-exit exec_exit_code
check exec-stdin exec_stdin
check exec-spdy exec_spdy
check exec-terminal exec_terminal
check logs-follow logs_follow
check copy-in copy_in
check copy-out copy_out
check port-forward port_forward
check attach attach
if has_ephemeral_containers; then
  check debug debug
else
  skipped=$((skipped + 1))
  echo 'skip  debug          (this server has no ephemeral containers)'
fi
check run-interactive run_interactive
check watch watch_events
check apply apply
check delete delete

echo "smoke: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
