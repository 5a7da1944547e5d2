# Helm from Go modules, kept in the cache. Sourced after toolchain.sh.
# shellcheck shell=bash

HELM_VERSION=3.22.0

# ensure_helm: sets HELM, and puts it on PATH. Takes a Go of its own: Helm 3.22 asks for 1.26.
ensure_helm() {
  local dir=$TOOLS_ROOT/helm-$HELM_VERSION
  HELM=$dir/helm
  PATH=$dir:$PATH
  [ -x "$HELM" ] && return
  note "compiling Helm $HELM_VERSION (once, about two minutes)"
  (
    # shellcheck disable=SC2034
    FLAVOUR=current LIB=$ROOT/scripts/lib/cluster
    # shellcheck source=cluster/common.sh
    . "$LIB/common.sh"
    # shellcheck source=cluster/prerequisites.sh
    . "$LIB/prerequisites.sh"
    mkdir -p "$CACHE"
    lock_shared
    find_go
    unlock_shared
    GOTOOLCHAIN=local GOFLAGS='' CGO_ENABLED=0 GOBIN=$dir "$GO" install -trimpath -ldflags '-s -w' \
      "helm.sh/helm/v3/cmd/helm@v$HELM_VERSION" 2>&1 | { grep -v '^go: downloading' >&2 || true; }
  )
  [ -x "$HELM" ] || fail "Helm did not compile (see above)"
}
