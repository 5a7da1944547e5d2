# Chromium, and what drives it, for the test of the relay's pages: playwright-core and axe-core of npm, kept in the cache. Sourced
# after toolchain.sh.
# shellcheck shell=bash

# ensure_browser: names it to the tests; 1 where there is no Node.js that it runs on.
ensure_browser() {
  ensure_debian chromium=chromium
  ensure_npm MYKUBE_BROWSER_PAGES pages.mjs browser "npm's playwright-core and axe-core" || return 1
  MYKUBE_CHROMIUM=$(command -v chromium)
  export MYKUBE_CHROMIUM
}
