# Two identity providers for the tests of relay/provider, kept in the cache: npm's oidc-provider, and the example server of the
# Go module zitadel/oidc. Sourced after toolchain.sh.
# shellcheck shell=bash

# ensure_oidc_provider: 1 where there is no Node.js that it runs on.
ensure_oidc_provider() { ensure_npm MYKUBE_OIDC_PROVIDER server.mjs oidc-provider "npm's oidc-provider"; }

# ensure_zitadel_oidc: 1 where there is no Go to build it with.
ensure_zitadel_oidc() { ensure_go_program MYKUBE_ZITADEL_OIDC zitadel-oidc zitadel-oidc "the example server of zitadel/oidc"; }
