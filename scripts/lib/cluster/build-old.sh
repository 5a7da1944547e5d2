# Debian's old Kubernetes, compiled from its source package with Debian's Go 1.19.
# shellcheck shell=bash
# shellcheck source=debian.sh
. "$LIB/debian.sh"

GO_PACKAGE=k8s.io/kubernetes

build_kubernetes() {
  local dir=$1 work=$1/build component
  ensure_packages patch=patch xz=xz-utils dpkg-deb=dpkg
  mkdir "$work"
  say "fetching the source of Kubernetes $VERSION and Go 1.19"
  debian_sources "$work"
  debian_unpack "$work" golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev
  unpack_source "$work"
  use_debian_go "$work"
  cd "$work/gopath/src/$GO_PACKAGE" || return
  say "generating its OpenAPI definitions"
  generate_openapi "$work"
  for component in kube-apiserver kube-controller-manager kube-scheduler kubelet; do
    say "compiling $component $VERSION; the four take some minutes"
    nice -n 5 go build -trimpath -ldflags "$(version_flags)" -o "$dir/$component" "$GO_PACKAGE/cmd/$component" >&2
  done
  cd /
  rm -rf "$work"
}

unpack_source() {
  local tree=$1/gopath/src/$GO_PACKAGE patch
  mkdir -p "$1/source" "$tree"
  (cd "$1/source" && apt-get -qq source --download-only kubernetes >&2)
  tar -xzf "$1"/source/kubernetes_*.orig.tar.gz -C "$tree" --strip-components=1
  tar -xJf "$1"/source/kubernetes_*.debian.tar.xz -C "$1/source"
  while read -r patch; do
    case $patch in '' | '#'*) continue ;; esac
    patch -s -d "$tree" -p1 <"$1/source/debian/patches/$patch" >&2
  done <"$1/source/debian/patches/series"
  # The reflect2 in the source crashes when built by Go 1.18 and later; Debian's package does not.
  rm -f "$tree"/vendor/github.com/modern-go/reflect2/*.{go,s}
  cp "$1"/root/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$tree/vendor/github.com/modern-go/reflect2/"
}

use_debian_go() {
  local root=$1/go
  mkdir -p "$root/pkg"
  cp -a "$1/root/usr/share/go-1.19/." "$root/"
  cp -a "$1"/root/usr/lib/go-1.19/{bin,VERSION} "$root/"
  cp -a "$1"/root/usr/lib/go-1.19/pkg/{linux_amd64,tool} "$root/pkg/"
  export GOROOT=$root PATH=$root/bin:$PATH GOPATH=$1/gopath GOCACHE=$1/gocache
  export GO111MODULE=off GOFLAGS='' CGO_ENABLED=0 GOPROXY=off
}

# generate_openapi WORK: the release lacks these generated sources.
generate_openapi() {
  local inputs
  go build -o "$1/openapi-gen" "$GO_PACKAGE/vendor/k8s.io/kube-openapi/cmd/openapi-gen" >&2
  inputs=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg staging/src/k8s.io vendor/k8s.io |
    xargs -n 1 dirname | sed "s#^staging/src/#vendor/#; s#^#$GO_PACKAGE/#" |
    grep -vE 'sample-|/test|code-generator|kube-openapi/(test|cmd|pkg/generators)' | sort -u | paste -sd,)
  nice -n 5 "$1/openapi-gen" --go-header-file hack/boilerplate/boilerplate.generatego.txt -O zz_generated.openapi \
    -p "$GO_PACKAGE/pkg/generated/openapi" -r "$1/violations.txt" -i "$inputs" >&2
}

version_flags() {
  local flags='-s -w' setting
  for setting in gitVersion="$VERSION" gitMajor=1 gitMinor=20 gitTreeState=clean gitCommit=debian \
    buildDate=2021-01-13T00:00:00Z; do
    flags+=" -X $GO_PACKAGE/vendor/k8s.io/component-base/version.$setting"
    flags+=" -X $GO_PACKAGE/vendor/k8s.io/client-go/pkg/version.$setting"
  done
  echo "$flags"
}
