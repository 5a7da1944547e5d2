# The Kubernetes project's metrics server, from Go modules.
# shellcheck shell=bash

ensure_metrics_server() {
  [ "$SERVICES" = yes ] || return 0
  [ -d "$METRICS_SERVER" ] || into_cache "$METRICS_SERVER" build_metrics_server
}

build_metrics_server() {
  local dir=$1
  lock_shared
  find_go
  unlock_shared
  say "compiling the metrics server; on two cores this takes about three minutes"
  (cd "$LIB/metrics-server" &&
    GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 nice -n 5 "$GO" build -trimpath -buildvcs=false \
      -ldflags '-s -w' -o "$dir/metrics-server" . 2>&1) | { grep -v '^go: downloading' >&2 || true; }
}
