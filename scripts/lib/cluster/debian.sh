# Debian packages unpacked into a folder, without installing them. They come from one fixed release,
# through a private apt configuration with the mirror that this system uses.
# shellcheck shell=bash

DEBIAN_RELEASE=bookworm

# debian_sources DIR: makes the private configuration and exports APT_CONFIG.
debian_sources() {
  local dir=$1/apt mirror key=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ') || true
  [ -n "$mirror" ] || die "no Debian mirror in /etc/apt; this builds on Debian only (or set MYKUBE_E2E_KUBECONFIG)"
  [ -r $key ] || ensure_packages no-keyring=debian-archive-keyring
  mkdir -p "$dir"/lists/partial "$dir"/cache/archives/partial
  printf '%s [signed-by=%s] %s %s main\n' deb $key "$mirror" $DEBIAN_RELEASE deb-src $key "$mirror" $DEBIAN_RELEASE \
    >"$dir/sources.list"
  cat >"$dir/apt.conf" <<CONF
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$dir/lists";
Dir::Cache "$dir/cache";
APT::Sandbox::User "root";
CONF
  export APT_CONFIG=$dir/apt.conf
  apt-get -qq update >&2
}

# debian_unpack DIR PACKAGE...: the packages' files below DIR/root.
debian_unpack() {
  local dir=$1 package
  shift
  mkdir -p "$dir/debs" "$dir/root"
  (cd "$dir/debs" && apt-get -qq download "$@" >&2)
  for package in "$dir"/debs/*.deb; do dpkg-deb -x "$package" "$dir/root"; done
  rm -r "$dir/debs"
}
