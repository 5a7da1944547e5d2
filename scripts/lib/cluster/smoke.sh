#!/usr/bin/env bash
# Every kind of request that kubectl makes of a cluster, one check each. KUBECONFIG chooses the way
# to the cluster, so the same checks run through a tunnel. MYKUBE_CLUSTER_IMAGE is a busybox image,
# MYKUBE_CLUSTER_API_DOWN (optional) the manifest of an aggregated API that is down.
set -uo pipefail

: "${KUBECONFIG:?set KUBECONFIG, or run scripts/cluster smoke}"
IMAGE=${MYKUBE_CLUSTER_IMAGE:?set MYKUBE_CLUSTER_IMAGE, or run scripts/cluster smoke}
HERE=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
POD=smoke-$$
API_DOWN=${MYKUBE_CLUSTER_API_DOWN:-}
WORK=$(mktemp -d)
passed=0 failed=0 skipped=0
export POD IMAGE WORK

tidy() {
  kubectl delete --ignore-not-found --wait=false --grace-period=1 "deployment/d-$POD" "pod/$POD" "pod/$POD-b" \
    "pod/$POD-c" "configmap/w-$POD" "service/$POD" >/dev/null 2>&1
  if [ -e "$WORK/api-down" ]; then kubectl delete --ignore-not-found -f "$API_DOWN" >/dev/null 2>&1; fi
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

# service: from another pod, and from the one behind it, by the address that kube-proxy translates.
service() {
  local address
  kubectl expose "pod/$POD" --port=80 --target-port=8080 || return
  address=$(kubectl get "service/$POD" -o 'jsonpath={.spec.clusterIP}')
  eventually 20 kubectl exec "$POD" -- timeout 5 wget -qO- "http://$address/" | grep '^hello$' &&
    kubectl run "$POD-c" --rm -i --restart=Never --image="$IMAGE" -- timeout 5 wget -qO- "http://$address/" | grep '^hello'
}

service_proxy() {
  local namespace
  namespace=$(kubectl get "service/$POD" -o 'jsonpath={.metadata.namespace}')
  [ "$(kubectl get --raw "/api/v1/namespaces/$namespace/services/$POD:80/proxy/")" = hello ]
}

# top: the metrics server looks every few seconds, and needs to have seen the pod.
top() {
  eventually 90 kubectl top pods "$POD" --no-headers | grep -E "^$POD +[0-9]+m +[0-9]+Mi" &&
    kubectl top nodes --no-headers | grep -E ' [0-9]+m +[0-9]+% +[0-9]+Mi'
}

# api_down: an aggregated API whose service has no pods. The answer may not wait for a connection to time out.
api_down() {
  touch "$WORK/api-down"
  kubectl apply -f "$API_DOWN" || return
  eventually 20 refused_at_once
}

refused_at_once() {
  [[ $(timeout 5 kubectl get --raw /apis/down.mykube.test/v1 2>&1) == *'unable to handle the request'* ]]
}

# eventually SECONDS COMMAND...: the output of COMMAND when it first succeeds.
eventually() {
  local deadline=$((SECONDS + $1)) output
  shift
  until output=$("$@" 2>&1); do
    [ $SECONDS -lt $deadline ] || { echo "$output" >&2; return 1; }
    sleep 0.5
  done
  echo "$output"
}

has_services() { [ -n "$(kubectl get endpoints kubernetes -n default -o 'jsonpath={.subsets}' 2>/dev/null)" ]; }

has_metrics() { kubectl get apiservice v1beta1.metrics.k8s.io >/dev/null 2>&1; }

# skip NAME WHY
skip() {
  skipped=$((skipped + 1))
  printf 'skip  %-14s (%s)\n' "$1" "$2"
}

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
  skip debug 'this server has no ephemeral containers'
fi
check run-interactive run_interactive
check watch watch_events
check apply apply
if has_services; then
  check service service
  check service-proxy service_proxy
else
  skip service 'this cluster has no services'
  skip service-proxy 'this cluster has no services'
fi
if has_metrics; then check top top; else skip top 'this cluster has no metrics server'; fi
if [ -n "$API_DOWN" ]; then
  check api-down api_down
else
  skip api-down 'it would change what all users of this cluster see'
fi
check delete delete

echo "smoke: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
