# Chromium, and what drives it, for the test of the relay's pages: playwright-core and axe-core of npm, kept in the cache. Sourced
# after toolchain.sh.
# shellcheck shell=bash

BROWSER_SOURCE=$ROOT/scripts/lib/browser

# ensure_browser: installs it once and names it to the tests; 1 where there is no Node.js that it runs on.
ensure_browser() {
  local dir scratch major
  ensure_debian node=nodejs npm=npm chromium=chromium
  major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
  [ "$major" -ge 20 ] || return 1
  dir=$TOOLS_ROOT/browser-$(cat "$BROWSER_SOURCE"/{package.json,package-lock.json,pages.mjs} | sha256sum | cut -c1-12)
  if [ ! -d "$dir" ]; then
    note "installing npm's playwright-core and axe-core (once)"
    mkdir -p "$TOOLS_ROOT"
    scratch=$(mktemp -d "$TOOLS_ROOT/installing-browser.XXXXXX")
    cp "$BROWSER_SOURCE"/{package.json,package-lock.json,pages.mjs} "$scratch"
    if ! npm --prefix "$scratch" ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2; then
      rm -rf "$scratch"
      fail "npm's playwright-core and axe-core could not be installed (see above)"
    fi
    mv -T "$scratch" "$dir"
  fi
  MYKUBE_CHROMIUM=$(command -v chromium)
  export MYKUBE_CHROMIUM MYKUBE_BROWSER_PAGES=$dir/pages.mjs
}
