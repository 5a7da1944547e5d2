# k9s from Go modules, kept in the cache. Sourced after toolchain.sh.
# shellcheck shell=bash

K9S_VERSION=$(sed -n 's|^\tgithub.com/derailed/k9s v\([0-9.]*\).*|\1|p' "$ROOT/scripts/lib/k9s/go.mod")
K9S_DIR=$TOOLS_ROOT/k9s-$K9S_VERSION

# have_k9s: whether it was compiled before.
have_k9s() { [ -x "$K9S_DIR/k9s" ]; }

# ensure_k9s: puts it on PATH. Its sources (2.7 GB) and objects (1.9 GB) are not kept.
ensure_k9s() {
  PATH=$K9S_DIR:$PATH
  have_k9s && return
  note "compiling k9s $K9S_VERSION (once, about five minutes; 4.6 GB of disk for the time being)"
  (
    # shellcheck disable=SC2034
    FLAVOUR=current LIB=$ROOT/scripts/lib/cluster
    # shellcheck source=cluster/common.sh
    . "$LIB/common.sh"
    # shellcheck source=cluster/prerequisites.sh
    . "$LIB/prerequisites.sh"
    mkdir -p "$CACHE" "$K9S_DIR"
    lock_shared
    find_go
    unlock_shared
    scratch=$(mktemp -d "$TOOLS_ROOT/building-k9s.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    cd "$ROOT/scripts/lib/k9s" || exit
    GOTOOLCHAIN=local GOFLAGS='-mod=readonly -modcacherw' CGO_ENABLED=0 GOMODCACHE=$scratch/modules GOCACHE=$scratch/objects \
      nice -n 5 "$GO" build -trimpath -buildvcs=false -ldflags '-s -w' -o "$scratch/k9s" github.com/derailed/k9s 2>&1 |
      { grep -v '^go: downloading' >&2 || true; }
    mv "$scratch/k9s" "$K9S_DIR/k9s"
  )
  have_k9s || fail "k9s did not compile (see above)"
}
