# Two identity providers for the tests of relay/provider, kept in the cache: npm's oidc-provider, and the example server of the
# Go module zitadel/oidc. Sourced after toolchain.sh.
# shellcheck shell=bash

OIDC_PROVIDER_SOURCE=$ROOT/scripts/lib/oidc-provider

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

# ensure_zitadel_oidc: 1 where there is no Go to build it with.
ensure_zitadel_oidc() { ensure_go_program MYKUBE_ZITADEL_OIDC zitadel-oidc zitadel-oidc "the example server of zitadel/oidc"; }
