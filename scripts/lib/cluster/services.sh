# What makes services and aggregated APIs work: kube-proxy on the node, and the metrics server as a pod.
# shellcheck shell=bash

start_services() {
  [ "$SERVICES" = yes ] || return 0
  start_kube_proxy
  # An API server that is ready may yet lack kinds that are needed here.
  until_true 30 apply_metrics_server || apply_metrics_server
}

start_kube_proxy() {
  alive kube-proxy && return
  spawn kube-proxy "${INSIDE[@]}" "$KUBERNETES/kube-proxy" --kubeconfig="$STATE/kube-proxy.kubeconfig" \
    --proxy-mode=nftables --hostname-override="$NODE" --cluster-cidr="$POD_SUBNET" \
    --healthz-bind-address=127.0.0.1:10256 --metrics-bind-address=127.0.0.1:10249 \
    --conntrack-max-per-core=0 --conntrack-min=0 --conntrack-tcp-timeout-established=0 \
    --conntrack-tcp-timeout-close-wait=0
  await kube-proxy 60 listens 10256
}

apply_metrics_server() { render manifests/metrics-server.yaml | kube apply -f - >/dev/null; }

# An aggregated API that is registered and not available makes kubectl complain and keeps namespaces from going.
await_metrics_server() {
  [ "$SERVICES" = yes ] || return 0
  kube wait --for=condition=Available --timeout=90s apiservice/v1beta1.metrics.k8s.io >/dev/null ||
    die "the metrics server did not become available; see: kubectl -n kube-system describe pods"
  say "metrics-server is up"
}

stop_services() { stop kube-proxy 5; }
