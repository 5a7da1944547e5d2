# Kubernetes' client for Python, in an environment of its own in the cache. Sourced after toolchain.sh.
# shellcheck shell=bash

# ensure_python_client: sets and exports MYKUBE_E2E_PYTHON, a Python that has the client.
ensure_python_client() {
  local wanted=$ROOT/scripts/lib/python/requirements.txt dir
  ensure_debian python3=python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || ensure_debian no-venv-module=python3-venv
  dir=$TOOLS_ROOT/python-$({ python3 --version && cat "$wanted"; } | sha256sum | cut -c1-12)
  export MYKUBE_E2E_PYTHON=$dir/bin/python
  [ -x "$MYKUBE_E2E_PYTHON" ] && return
  note "installing the Python client $(sed -n 's/^kubernetes==//p' "$wanted") (once)"
  rm -rf "$dir.new"
  mkdir -p "$TOOLS_ROOT"
  python3 -m venv "$dir.new"
  "$dir.new/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$wanted" >&2
  mv -T "$dir.new" "$dir"
}
