# A mail server for the tests of codes by email: Python's aiosmtpd, in an environment of its own in the cache. Sourced after
# toolchain.sh.
# shellcheck shell=bash

# ensure_smtp_server: sets and exports MYKUBE_SMTP_SERVER, a program that is one.
ensure_smtp_server() {
  local source=$ROOT/scripts/lib/smtp dir
  ensure_debian python3=python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || ensure_debian no-venv-module=python3-venv
  dir=$TOOLS_ROOT/smtp-$({ python3 --version && cat "$source"/{requirements.txt,server.py}; } | sha256sum | cut -c1-12)
  export MYKUBE_SMTP_SERVER=$dir/server
  [ -x "$MYKUBE_SMTP_SERVER" ] && return
  note "installing aiosmtpd (once)"
  rm -rf "$dir.new"
  mkdir -p "$TOOLS_ROOT"
  python3 -m venv "$dir.new"
  "$dir.new/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$source/requirements.txt" >&2
  cp "$source/server.py" "$dir.new"
  printf '#!/bin/sh\nexec "%s/bin/python" "%s/server.py" "$@"\n' "$dir" "$dir" >"$dir.new/server"
  chmod +x "$dir.new/server"
  mv -T "$dir.new" "$dir"
}
