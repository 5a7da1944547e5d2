# What building and testing need: a C compiler, Rust, cargo-nextest, cargo-deny. Sourced by scripts and CI.
# shellcheck shell=bash

NEXTEST_VERSION=0.9.151
DENY_VERSION=0.20.2
MUTANTS_VERSION=27.1.0

ROOT=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
CACHE_ROOT=${MYKUBE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mykube}
TOOLS_ROOT=$CACHE_ROOT/tools

step() { printf '\n\033[1m== %s\033[0m\n' "$*" >&2; }
note() { printf '   %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# ensure_debian PROGRAM=PACKAGE...: installs the package of each program that is missing.
ensure_debian() {
  local pair missing=() sudo=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "missing: ${missing[*]} (Debian package names); install them and run again"
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "missing: ${missing[*]}; run as root: apt-get install ${missing[*]}"
    sudo=(sudo)
  fi
  note "installing ${missing[*]}"
  "${sudo[@]}" apt-get -qq update >&2
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
}

# ensure_rust: a C compiler for aws-lc, and the Rust that Cargo.toml asks for.
ensure_rust() {
  ensure_debian cc=gcc git=git
  echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1 || ensure_debian no-libc-headers=libc6-dev
  [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH
  local wanted have
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
  command -v cargo >/dev/null || fail "Rust $wanted or newer is needed: install it with rustup (https://rustup.rs), then run again"
  have=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -1)" = "$wanted" ] ||
    fail "Rust $wanted or newer is needed, this is $have: run 'rustup update stable', then again"
}

# ensure_cargo_tool NAME VERSION: builds a cargo subcommand once, beside the other caches, and puts it on PATH.
ensure_cargo_tool() {
  PATH=$TOOLS_ROOT/bin:$PATH
  case $("$1" --version 2>/dev/null || cargo "${1#cargo-}" --version 2>/dev/null || true) in
    *" $2"*) return ;;
  esac
  note "building $1 $2 (once)"
  cargo install --quiet --locked --root "$TOOLS_ROOT" "$1" --version "$2"
}

# ensure_component rustfmt|clippy
ensure_component() {
  local probe=cargo-${1/rustfmt/fmt}
  command -v "$probe" >/dev/null && "$probe" --version >/dev/null 2>&1 && return
  command -v rustup >/dev/null || fail "$1 is missing: install it as your Rust was installed"
  rustup component add "$1" >&2
}

# ensure_go_program VARIABLE PROGRAM SOURCE WHAT: compiles scripts/lib/SOURCE once, keeps it in the cache, and names it to the tests;
# 1 where there is no Go to compile it with.
ensure_go_program() {
  local program=$2 source=$ROOT/scripts/lib/$3 what=$4 dir go scratch
  dir=$TOOLS_ROOT/$program-$(cat "$source"/go.{mod,sum} "$source/main.go" | sha256sum | cut -c1-12)
  if [ ! -x "$dir/$program" ]; then
    go=$(command -v go || compgen -G "$CACHE_ROOT/cluster/go-*/go/bin/go" | tail -1)
    [ -n "$go" ] || return 1
    note "compiling $what (once, about a minute)"
    mkdir -p "$TOOLS_ROOT"
    scratch=$(mktemp -d "$TOOLS_ROOT/building-$program.XXXXXX")
    if ! (cd "$source" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 \
      nice -n 5 "$go" build -trimpath -buildvcs=false -ldflags '-s -w' -o "$scratch/$program" . 2>"$scratch/said"); then
      grep -v '^go: downloading' "$scratch/said" >&2
      rm -rf "$scratch"
      fail "the program of scripts/lib/$3 did not compile (see above); Go 1.26 or newer is needed"
    fi
    mkdir -p "$dir"
    mv "$scratch/$program" "$dir/$program"
    rm -rf "$scratch"
  fi
  export "$1=$dir/$program"
}

# ensure_npm VARIABLE MAIN SOURCE WHAT: installs what scripts/lib/SOURCE asks npm for, once, keeps it in the cache with the program MAIN, and
# names that to the tests; 1 where there is no Node.js that it runs on.
ensure_npm() {
  local main=$2 name=$3 source=$ROOT/scripts/lib/$3 what=$4 dir major scratch
  ensure_debian node=nodejs npm=npm
  major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
  [ "$major" -ge 20 ] || return 1
  dir=$TOOLS_ROOT/$name-$(cat "$source"/{package.json,package-lock.json} "$source/$main" | sha256sum | cut -c1-12)
  if [ ! -d "$dir" ]; then
    note "installing $what (once)"
    mkdir -p "$TOOLS_ROOT"
    scratch=$(mktemp -d "$TOOLS_ROOT/installing-$name.XXXXXX")
    cp "$source"/{package.json,package-lock.json} "$source/$main" "$scratch"
    if ! npm --prefix "$scratch" ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2; then
      rm -rf "$scratch"
      fail "$what could not be installed (see above)"
    fi
    mv -T "$scratch" "$dir"
  fi
  export "$1=$dir/$main"
}
