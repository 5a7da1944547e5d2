# The program that reads requests as kube-apiserver does, from Go modules, kept in the cache. Sourced after toolchain.sh.
# shellcheck shell=bash

REQUEST_INFO_SOURCE=$ROOT/scripts/lib/requestinfo
REQUEST_INFO_DIR=$TOOLS_ROOT/request-info-$(cat "$REQUEST_INFO_SOURCE"/go.{mod,sum} "$REQUEST_INFO_SOURCE/main.go" | sha256sum | cut -c1-12)

# ensure_request_info: builds it once and names it to the tests; 1 where there is no Go to build it with.
ensure_request_info() {
  if [ ! -x "$REQUEST_INFO_DIR/request-info" ]; then
    local go scratch
    go=$(command -v go || compgen -G "$CACHE_ROOT/cluster/go-*/go/bin/go" | tail -1)
    [ -n "$go" ] || return 1
    note "compiling kube-apiserver's reading of requests (once, about a minute)"
    mkdir -p "$TOOLS_ROOT"
    scratch=$(mktemp -d "$TOOLS_ROOT/building-request-info.XXXXXX")
    if ! (cd "$REQUEST_INFO_SOURCE" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 \
      nice -n 5 "$go" build -trimpath -buildvcs=false -ldflags '-s -w' -o "$scratch/request-info" . 2>"$scratch/said"); then
      grep -v '^go: downloading' "$scratch/said" >&2
      rm -rf "$scratch"
      fail "the program of scripts/lib/requestinfo did not compile (see above); Go 1.26 or newer is needed"
    fi
    mkdir -p "$REQUEST_INFO_DIR"
    mv "$scratch/request-info" "$REQUEST_INFO_DIR/request-info"
    rm -rf "$scratch"
  fi
  export MYKUBE_REQUEST_INFO=$REQUEST_INFO_DIR/request-info
}
