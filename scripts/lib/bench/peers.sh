#!/usr/bin/env bash
# Installs the peers that scripts/bench measures, each by its package manager at a pinned version, into the cache.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
HERE=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=../toolchain.sh
. "$HERE/../toolchain.sh"

PEERS=${MYKUBE_PEERS:-$TOOLS_ROOT/peers}
RATHOLE_VERSION=0.5.0
PENGUIN_VERSION=0.8.4
BORE_VERSION=0.6.0
WORMHOLE_VERSION=0.8.1
# In the order in which a first run installs them.
ALL=(rathole penguin ssh haproxy chisel frp bore fowl wormhole)

usage() {
  cat <<USAGE
usage: scripts/lib/bench/peers.sh [PEER...]

Puts these peers (by default all: ${ALL[*]}) into $PEERS,
and into the system what comes from Debian. One that is there at its version is left alone. The first run compiles for
half an hour on two cores, as politely as it can. One that cannot be installed is named, with the reason, in
failed/PEER there; the exit code is then 1, and scripts/bench shows the peer as missing.
USAGE
}

case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -gt 0 ] || set -- "${ALL[@]}"
mkdir -p "$PEERS/bin" "$PEERS/failed" "$PEERS/versions"

# from_cargo BINARY CRATE VERSION OPTION...
from_cargo() {
  local crate=$2 version=$3
  [ "$(cat "$PEERS/versions/$crate" 2>/dev/null)" = "$version" ] && [ -x "$PEERS/bin/$1" ] && return
  note "compiling $crate $version (once, some minutes)"
  local objects
  objects=$(mktemp -d "$PEERS/building-$crate.XXXXXX")
  if ! (cd / && nice -n 19 cargo install --quiet -j1 --root "$PEERS" --target-dir "$objects" "$crate" --version "$version" "${@:4}"); then
    rm -rf "$objects"
    return 1
  fi
  rm -rf "$objects"
  echo "$version" >"$PEERS/versions/$crate"
}

# from_go PROGRAM MODULE PACKAGE: at the version in go/go.mod.
from_go() {
  local version
  version=$(sed -n "s|^\t$2 v\([^ ]*\).*|\1|p" "$HERE/go/go.mod")
  [ "$(cat "$PEERS/versions/$1" 2>/dev/null)" = "$version" ] && [ -x "$PEERS/bin/$1" ] && return
  note "compiling $1 $version (once)"
  command -v go >/dev/null || { echo "error: no Go; install Go 1.26 or newer" >&2; return 1; }
  local scratch
  scratch=$(mktemp -d "$PEERS/building-$1.XXXXXX")
  if ! (cd "$HERE/go" && GOTOOLCHAIN=local GOFLAGS='-mod=readonly -modcacherw' CGO_ENABLED=0 GOMODCACHE=$scratch/modules GOCACHE=$scratch/objects \
      nice -n 19 go build -p 1 -trimpath -buildvcs=false -ldflags '-s -w' -o "$scratch/$1" "$2$3" 2>"$scratch/said"); then
    grep -v '^go: downloading' "$scratch/said" >&2
    rm -rf "$scratch"
    return 1
  fi
  mv "$scratch/$1" "$PEERS/bin/$1"
  rm -rf "$scratch"
  echo "$version" >"$PEERS/versions/$1"
}

# Fowl, and the mailbox and transit relay that it and magic-wormhole.rs meet at.
python_environment() {
  local dir=$PEERS/python wanted
  ensure_debian python3=python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || ensure_debian no-venv-module=python3-venv
  wanted=$({ python3 --version && cat "$HERE/python/requirements.txt"; } | sha256sum | cut -c1-12)
  [ "$(cat "$PEERS/versions/python" 2>/dev/null)" = "$wanted" ] && [ -x "$dir/bin/fowl" ] && return
  note "installing fowl, a mailbox and a transit relay (once)"
  # In its place from the start: its scripts name it.
  rm -rf "$dir"
  python3 -m venv "$dir" &&
    nice -n 19 "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$HERE/python/requirements.txt" >&2 &&
    echo "$wanted" >"$PEERS/versions/python"
}

install() {
  case $1 in
    # Its own Cargo.lock asks for a `time` that today's Rust refuses, so its dependencies are the newest it allows.
    rathole)
      ensure_debian cc=gcc pkg-config=pkg-config
      pkg-config --exists openssl || ensure_debian no-openssl-headers=libssl-dev
      from_cargo rathole rathole "$RATHOLE_VERSION" --no-default-features --features server,client,tls,noise,websocket
      ;;
    penguin)
      ensure_debian cc=gcc
      from_cargo penguin rusty-penguin "$PENGUIN_VERSION" --locked
      ;;
    bore) from_cargo bore bore-cli "$BORE_VERSION" --locked ;;
    wormhole)
      python_environment && from_cargo wormhole-rs magic-wormhole-cli "$WORMHOLE_VERSION" --locked
      ;;
    fowl) python_environment ;;
    chisel) from_go chisel github.com/jpillora/chisel '' ;;
    frp) from_go frps github.com/fatedier/frp /cmd/frps && from_go frpc github.com/fatedier/frp /cmd/frpc ;;
    ssh) from_debian /usr/sbin/sshd openssh-server ;;
    haproxy) from_debian /usr/sbin/haproxy haproxy ;;
    *) echo "no peer $1; there are ${ALL[*]}" >&2; return 1 ;;
  esac
}

# from_debian PROGRAM PACKAGE: at the version of this Debian, without starting it.
from_debian() {
  if [ ! -x "$1" ]; then
    local policy=/usr/sbin/policy-rc.d made=no
    if [ "$(id -u)" = 0 ] && [ ! -e $policy ]; then
      printf '#!/bin/sh\nexit 101\n' >$policy
      chmod 755 $policy
      made=yes
    fi
    ensure_debian "$1=$2"
    [ $made = no ] || rm -f $policy
  fi
  [ -x "$1" ] && dpkg-query -W -f '${Version}\n' "$2" >"$PEERS/versions/$2"
}

ensure_rust
failed=0
for peer; do
  log=$PEERS/failed/$peer.log
  # A shell of its own: `fail` ends only that.
  if (install "$peer") 2> >(tee "$log" >&2); then
    rm -f "$log" "$PEERS/failed/$peer"
  else
    { grep -E '^error|^E:|not ' "$log" || tail -1 "$log"; } | head -1 | cut -c1-200 >"$PEERS/failed/$peer"
    note "$peer cannot be installed: $(cat "$PEERS/failed/$peer")"
    failed=1
  fi
done
exit $failed
