# Two identity providers for the tests of relay/provider, kept in the cache: npm's oidc-provider, and the example server of the
# Go module zitadel/oidc. Sourced after toolchain.sh.
# shellcheck shell=bash

OIDC_PROVIDER_SOURCE=$ROOT/scripts/lib/oidc-provider
ZITADEL_OIDC_SOURCE=$ROOT/scripts/lib/zitadel-oidc

# ensure_oidc_provider: installs it once and names it to the tests; 1 where there is no Node.js that it runs on.
ensure_oidc_provider() {
  local dir scratch major
  ensure_debian node=nodejs npm=npm
  major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
  [ "$major" -ge 20 ] || return 1
  dir=$TOOLS_ROOT/oidc-provider-$(cat "$OIDC_PROVIDER_SOURCE"/{package.json,package-lock.json,server.mjs} | sha256sum | cut -c1-12)
  if [ ! -d "$dir" ]; then
    note "installing npm's oidc-provider (once)"
    mkdir -p "$TOOLS_ROOT"
    scratch=$(mktemp -d "$TOOLS_ROOT/installing-oidc-provider.XXXXXX")
    cp "$OIDC_PROVIDER_SOURCE"/{package.json,package-lock.json,server.mjs} "$scratch"
    if ! npm --prefix "$scratch" ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2; then
      rm -rf "$scratch"
      fail "npm's oidc-provider could not be installed (see above)"
    fi
    mv -T "$scratch" "$dir"
  fi
  export MYKUBE_OIDC_PROVIDER=$dir/server.mjs
}

# ensure_zitadel_oidc: builds it once and names it to the tests; 1 where there is no Go to build it with.
ensure_zitadel_oidc() {
  local dir go scratch
  dir=$TOOLS_ROOT/zitadel-oidc-$(cat "$ZITADEL_OIDC_SOURCE"/go.{mod,sum} "$ZITADEL_OIDC_SOURCE/main.go" | sha256sum | cut -c1-12)
  if [ ! -x "$dir/zitadel-oidc" ]; then
    go=$(command -v go || compgen -G "$CACHE_ROOT/cluster/go-*/go/bin/go" | tail -1)
    [ -n "$go" ] || return 1
    note "compiling the example server of zitadel/oidc (once, about a minute)"
    mkdir -p "$TOOLS_ROOT"
    scratch=$(mktemp -d "$TOOLS_ROOT/building-zitadel-oidc.XXXXXX")
    if ! (cd "$ZITADEL_OIDC_SOURCE" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 \
      nice -n 5 "$go" build -trimpath -buildvcs=false -ldflags '-s -w' -o "$scratch/zitadel-oidc" . 2>"$scratch/said"); then
      grep -v '^go: downloading' "$scratch/said" >&2
      rm -rf "$scratch"
      fail "the program of scripts/lib/zitadel-oidc did not compile (see above); Go 1.26 or newer is needed"
    fi
    mkdir -p "$dir"
    mv "$scratch/zitadel-oidc" "$dir/zitadel-oidc"
    rm -rf "$scratch"
  fi
  export MYKUBE_ZITADEL_OIDC=$dir/zitadel-oidc
}
