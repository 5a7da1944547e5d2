# Names, paths and messages that every part of scripts/cluster uses.
# shellcheck shell=bash

KUBECTL_VERSION=1.37.1
IMAGE_PREFIX=mykube.local
NODE=localhost

CACHE=${MYKUBE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mykube}/cluster
CACHE=$(realpath -m "$CACHE")
KUBECTL_DIR=$CACHE/kubectl-$KUBECTL_VERSION
KUBECTL=$KUBECTL_DIR/bin/kubectl

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
die() {
  printf 'scripts/cluster: %s\n' "$*" >&2
  exit 1
}

# recipe_hash FILE...: names a build by what it is made from.
recipe_hash() { (cd "$LIB" && cat "$@") | sha256sum | cut -c1-12; }

# select_flavour current|old: sets what tells the two clusters apart.
select_flavour() {
  FLAVOUR=$1
  TOOLS=$CACHE/tools-$(recipe_hash build-tools.sh debian.sh images/go.mod images/echod/main.go images/pause/main.go \
    images/make_images.py)
  case $FLAVOUR in
    current)
      VERSION=v1.36.2
      KUBERNETES=$CACHE/$VERSION-$(recipe_hash build-current.sh kubernetes/go.mod kubernetes/go.sum kubernetes/main.go \
        kubernetes/apiserver.go)
      METRICS_SERVER=$CACHE/metrics-server-$(recipe_hash build-metrics-server.sh metrics-server/go.mod \
        metrics-server/go.sum metrics-server/main.go)
      PORT_BASE=16443 OLD_OPTION='' SERVICES=yes
      NO_INSECURE_PORT=() REMOTE_RUNTIME=()
      KUBELET_SETTINGS=('failCgroupV1: false')
      ;;
    old)
      VERSION=v1.20.2
      KUBERNETES=$CACHE/$VERSION-$(recipe_hash build-old.sh debian.sh)
      PORT_BASE=16543 OLD_OPTION=" --old" SERVICES=no
      NO_INSECURE_PORT=(--port=0) REMOTE_RUNTIME=(--container-runtime=remote)
      KUBELET_SETTINGS=('nodeStatusUpdateFrequency: 1s')
      ;;
  esac
  STATE=$CACHE/state-$FLAVOUR
  RUN=$STATE/run
  AUDIT_LOG=$STATE/logs/audit.log
  # Unix socket addresses hold 107 bytes.
  [ ${#RUN} -le 80 ] || die "the cache path $CACHE is too long for a socket; set MYKUBE_CACHE to a shorter one"
}

# into_cache DIR COMMAND...: runs COMMAND with a scratch folder, which becomes DIR when it succeeds.
into_cache() {
  local dir=$1 scratch status
  shift
  scratch=$(mktemp -d "$CACHE/building-$FLAVOUR.XXXXXX")
  chmod 755 "$scratch"
  set +e
  (set -e && "$@" "$scratch")
  status=$?
  set -e
  if [ $status != 0 ]; then
    rm -rf "$scratch"
    die "$1 failed (see above); run the command again to retry"
  fi
  mv -T "$scratch" "$dir"
}

kube() { "$KUBECTL" --kubeconfig "$STATE/admin.kubeconfig" "$@"; }

# until_true SECONDS COMMAND...: retries COMMAND, quietly.
until_true() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.2
  done
}
