# Starting, recognising and ending background processes. A record in $RUN/NAME.pid holds a process
# id and the start time of that process, so that a recycled id is never taken for ours.
# shellcheck shell=bash

start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The second field is a name in brackets that may hold blanks; the start time is the 22nd.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  echo "${20}"
}

pid_of() {
  local pid started
  read -r pid started 2>/dev/null <"$RUN/$1.pid" || return 1
  [ "$(start_time "$pid")" = "$started" ] && [ "$(state_of "$pid")" != Z ] && echo "$pid"
}

state_of() { sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null; }

alive() { pid_of "$1" >/dev/null; }

# spawn NAME COMMAND...: starts COMMAND in a session of its own, with its output in the log.
spawn() {
  local name=$1 pid
  shift
  setsid nohup "$@" >>"$STATE/logs/$name.log" 2>&1 </dev/null 8>&- 9>&- &
  pid=$!
  echo "$pid $(start_time "$pid")" >"$RUN/$name.pid"
}

# await NAME SECONDS COMMAND...: waits until COMMAND succeeds, as long as NAME lives.
await() {
  local name=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@" >/dev/null 2>&1; do
    alive "$name" || log_and_die "$name ended while starting"
    [ $SECONDS -lt $deadline ] || log_and_die "$name did not become ready"
    sleep 0.1
  done
  say "$name is up"
}

log_and_die() {
  tail -n 15 "$STATE/logs/${1%% *}.log" >&2
  die "$1; log: $STATE/logs/${1%% *}.log"
}

# stop NAME SECONDS: ends a recorded process whose program lies in the cache; SIGKILL after SECONDS.
stop() {
  local name=$1 pid deadline=$((SECONDS + $2))
  if pid=$(pid_of "$name") && [[ $(readlink "/proc/$pid/exe") == "$CACHE"/* ]]; then
    kill "$pid" 2>/dev/null || true
    while alive "$name"; do
      [ $SECONDS -lt $deadline ] || { kill -9 "$pid" 2>/dev/null || true; }
      sleep 0.1
    done
    say "$name stopped"
  fi
  rm -f "$RUN/$name.pid"
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
