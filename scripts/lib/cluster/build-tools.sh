# etcd, containerd, runc, the network plugins and the pod images.
# shellcheck shell=bash
. "$LIB/debian.sh"

ensure_tools() {
  [ -d "$TOOLS" ] && return
  find_go
  say "fetching etcd, containerd, runc and network plugins; making the pod images"
  into_cache "$TOOLS" build_tools
}

build_tools() {
  local dir=$1 program
  debian_sources "$dir"
  debian_unpack "$dir" containerd runc containernetworking-plugins etcd-server busybox-static
  rm -rf "$dir/apt" "$dir/root/usr/share"
  for program in pause echod; do
    (cd "$LIB/images" &&
      GOTOOLCHAIN=local GOFLAGS='' CGO_ENABLED=0 "$GO" build -trimpath -buildvcs=false -ldflags '-s -w' \
        -o "$dir/images/$program" "./$program" >&2)
  done
  python3 "$LIB/images/make_images.py" "$dir/images" "$dir/root/bin/busybox" \
    "$dir/images/pause" "$dir/images/echod" "$IMAGE_PREFIX"
  rm "$dir/images/pause" "$dir/images/echod"
}
