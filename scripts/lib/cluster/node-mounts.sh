# node-mounts.sh RUN DIR...: inside the node's mount namespace, puts a private folder over each DIR
# and an ordinary file over each sysctl that a kubelet sets.
# shellcheck shell=bash

run=$1
shift
for dir in "$@"; do
  mkdir -p "$run/private$dir"
  mount --bind "$run/private$dir" "$dir"
done

while read -r name value; do
  [ -e "/proc/sys/$name" ] || continue
  mkdir -p "$run/sysctl/$(dirname "$name")"
  echo "$value" >"$run/sysctl/$name"
  mount --bind "$run/sysctl/$name" "/proc/sys/$name"
done <<'SYSCTLS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SYSCTLS
