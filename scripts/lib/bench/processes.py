"""Starts and ends the processes of a setup, and the network they are in."""
import json, os, re, shlex, signal, socket, statistics, subprocess, time
from pathlib import Path

START_LIMIT = 30  # seconds until a process must be ready


class Broken(Exception):
    """A setup that cannot be measured, and why."""


class Net:
    """Namespaces held by `lab net`: one on loopback, two with a line between."""

    def __init__(self, lab, line, tcp=None):
        names = ["near", "far"] if line else ["near"]
        options = [word for name, value in (line or {}).items() for word in (f"--{name}", str(value))]
        self.process = subprocess.Popen([lab, "net", "--names", ",".join(names), *options],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = self.process.stdout.readline()
        if not said:
            raise Broken("`lab net` did not start; see above (it needs root)")
        ready = json.loads(said)
        spaces = ready["namespaces"]
        self.spaces = {place: spaces[place if line else "near"] for place in ("near", "far")}
        addresses = ready["links"]["near-far"] if line else {"near": "127.0.0.1", "far": "127.0.0.1"}
        # What a user connects to is on loopback, wherever the other side is.
        self.near, self.far = "127.0.0.1", addresses["far"]
        for place in self.spaces if tcp else ():
            # /proc/sys/net is that of the namespace one is in.
            if subprocess.run([*self.prefix(place), "sh", "-c", f"echo {tcp} > /proc/sys/net/ipv4/tcp_congestion_control"]).returncode:
                self.close()
                raise Broken(f"TCP congestion control `{tcp}` is not in this kernel, or not allowed "
                             "(sysctl net.ipv4.tcp_available_congestion_control, net.ipv4.tcp_allowed_congestion_control)")

    def prefix(self, place):
        return [*self.spaces[place]["prefix"], "--"]

    def netns(self, place):
        return self.spaces[place]["netns"]

    def ports(self, count):
        """Nobody else is here."""
        return range(20000, 20000 + count)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=20)


class Here:
    """Loopback of this machine, where the cluster is."""

    near = far = "127.0.0.1"

    def prefix(self, place):
        return []

    def ports(self, count):
        sockets = [socket.create_server((self.near, 0)) for _ in range(count)]
        found = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        return found

    def close(self):
        pass


class Setup:
    """A setup that runs in a network."""

    def __init__(self, table, net, work, bin_dir, peers):
        self.table, self.net, self.dir = table, net, Path(work)
        self.processes, self.watched = [], []
        self.dir.mkdir(parents=True)
        for name in ("tmp", "ram"):
            (self.dir / name).mkdir(mode=0o700)
        names = ["client", "target", *(f"p{n}" for n in range(1, 10))]
        self.values = {"near": net.near, "far": net.far, "dir": str(self.dir), "bin": str(bin_dir), "peers": str(peers),
                       "cluster": os.environ.get("KUBECONFIG", "")}
        self.values |= {name: str(port) for name, port in zip(names, net.ports(len(names)))}

    def fill(self, text):
        """Placeholders that are known; other braces stay."""
        return re.sub(r"\{(\w+)\}", lambda match: self.values.get(match[1], match[0]), text)

    def start(self):
        for name, content in self.table.get("files", {}).items():
            (self.dir / name).write_text(self.fill(content))
        for command in self.table.get("prepare", []):
            done = subprocess.run(shlex.split(self.fill(command)), cwd=self.dir, capture_output=True, text=True, timeout=60,
                                  env=self.environment({}))
            if done.returncode:
                raise Broken(f"`{self.fill(command)}` failed: {done.stderr[-300:]}")
        for process in self.table.get("process", []):
            self.start_process(process)
        self.values["via"] = self.fill(self.table.get("via", "{near}:{client}"))

    def environment(self, more):
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        own = {"HOME": str(self.dir), "TMPDIR": str(self.dir / "tmp"), "XDG_RUNTIME_DIR": str(self.dir / "ram")}
        return kept | own | {name: self.fill(value) for name, value in more.items()}

    def start_process(self, process):
        log = self.dir / f"{process['name']}.log"
        command = self.net.prefix(process.get("place", "far")) + shlex.split(self.fill(process["command"]))
        with open(log, "wb") as output:
            running = subprocess.Popen(command, cwd=self.dir, env=self.environment(process.get("env", {})),
                                       stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        self.processes.append(running)
        if process.get("counted", True):
            self.watched.append((process["name"], running.pid))
        if "stdin" in process:
            running.stdin.write((self.fill(process["stdin"]) + "\n").encode())
        running.stdin.close()
        deadline = time.monotonic() + START_LIMIT
        while not self.is_ready(process, running, log):
            tail = " / ".join(log.read_text(errors="replace").splitlines()[-3:])[-400:]
            if running.poll() is not None:
                raise Broken(f"{process['name']} ended with {running.returncode}: {tail}")
            if time.monotonic() > deadline:
                raise Broken(f"{process['name']} was not ready within {START_LIMIT} s: {tail}")
            time.sleep(0.02)

    def is_ready(self, process, running, log):
        said = log.read_text(errors="replace")
        if "capture" in process:
            name, pattern = process["capture"]
            found = re.search(pattern, said)
            if not found:
                return False
            self.values[name] = found[1]
        if "line" in process and not re.search(self.fill(process["line"]), said):
            return False
        return "port" not in process or listens(running.pid, int(self.fill(process["port"])))

    def load(self, lab, phases, options, limit):
        """Runs `lab load` through it; its figures."""
        procs = ",".join(f"{name}={pid}" for name, pid in self.watched)
        command = [lab, "load", "--target", self.fill("{far}:{target}"), "--via", self.values["via"],
                   "--target-in", self.net.netns("far"), "--via-in", self.net.netns("near"),
                   "--phases", ",".join(phases), *options]
        if procs:
            command += ["--procs", procs]
        return self.run_tool(command, limit)

    def sessions(self, lab, phases, options, limit):
        """Runs `lab sessions` at the relay; its figures."""
        procs = ",".join(f"{name}={pid}" for name, pid in self.watched)
        command = [*self.net.prefix("near"), lab, "sessions", "--relay", self.values["via"], "--phases", ",".join(phases),
                   "--procs", procs, *shlex.split(self.fill(self.table["sessions"])), *options]
        return self.run_tool(command, limit)

    def kubectl(self, runs, limit):
        """Wall time of `kubectl get nodes`; what it must know of the cluster is in its cache."""
        command = ["kubectl", "--kubeconfig", self.fill(self.table["kubectl"]), "get", "nodes"]
        took = []
        deadline = time.monotonic() + limit
        for _ in range(runs + 1):
            start = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, env=self.environment({}), stdin=subprocess.DEVNULL,
                                  timeout=max(1, deadline - start))
            took.append((time.monotonic() - start) * 1000)
            if done.returncode:
                raise Broken(f"kubectl failed: {done.stderr[-300:].strip()}")
        warm = took[1:]
        return {"get": {"p50_ms": statistics.median(warm), "p90_ms": statistics.quantiles(warm, n=10)[8], "first_ms": took[0]}, "died": []}

    def run_tool(self, command, limit):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as late:
            raise Broken(f"load did not end within {limit} s: {(late.stderr or b'')[-300:]!r}") from None
        (self.dir / "load.log").write_text(done.stderr)
        if done.returncode:
            raise Broken(f"load failed: {done.stderr[-400:].strip()}")
        return json.loads(done.stdout)

    def stop(self):
        # Each is the leader of a session of its own, so its group is it and what it started.
        for process in reversed(self.processes):
            signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and any(process.poll() is None for process in self.processes):
            time.sleep(0.02)
        for process in self.processes:
            signal_group(process, signal.SIGKILL)
            process.wait()


def signal_group(process, which):
    try:
        os.killpg(process.pid, which)
    except ProcessLookupError:
        pass


def listens(pid, port):
    """Whether something listens on this port in the namespace of a process."""
    wanted = f":{port:04X}"
    for family in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]
        except OSError:
            continue
        if any(line.split()[1].endswith(wanted) and line.split()[3] == "0A" for line in lines):
            return True
    return False
