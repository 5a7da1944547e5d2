# The current Kubernetes from Go modules: one binary, with a link for each component.
# shellcheck shell=bash

build_kubernetes() {
  local dir=$1 component version=k8s.io/component-base/version
  lock_shared
  find_go
  unlock_shared
  say "compiling Kubernetes $VERSION with $("$GO" version | cut -d' ' -f3); on two cores this takes about ten minutes"
  (cd "$LIB/kubernetes" &&
    GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 nice -n 5 "$GO" build -trimpath -buildvcs=false \
      -ldflags "-s -w -X $version.gitVersion=$VERSION -X $version.gitMajor=1 -X $version.gitMinor=36 -X $version.gitTreeState=clean" \
      -o "$dir/kubernetes" . 2>&1) | { grep -v '^go: downloading' >&2 || true; }
  for component in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubelet; do
    ln -s kubernetes "$dir/$component"
  done
}
