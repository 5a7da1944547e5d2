"""`scripts/bench accounts`: what a relay with accounts answers in a second, and what a relay without them costs beside one of another
commit: memory, threads, start-up time and throughput, as ratios of rounds that are interleaved. See --help."""
import argparse, json, os, secrets, socket, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import listing
from processes import Broken

ROOT = Path(__file__).resolve().parents[3]
# The last commit whose relay could have no accounts at all.
BEFORE_ACCOUNTS = "53fb2ec"
START_LIMIT = 30  # seconds
MEASURES = [("start-up", "ms"), ("idle", "KiB"), ("threads", ""), ("throughput", "MB/s"), ("CPU of it", "s/GiB")]


def main(words):
    parser = argparse.ArgumentParser(prog="scripts/bench accounts", description=__doc__)
    parser.add_argument("--against", default=BEFORE_ACCOUNTS, help=f"the other commit; by default {BEFORE_ACCOUNTS}, before there were accounts")
    parser.add_argument("--rounds", type=int, default=5, help="of each relay, interleaved")
    parser.add_argument("--time", default="5s", help="of each figure")
    parser.add_argument("--bin", type=Path, help="the folder of lab and mykube-relay, built before")
    parser.add_argument("--against-bin", type=Path, help="the other mykube-relay, built before")
    args = parser.parse_args(words)
    here = args.bin or build()
    there = args.against_bin or build_against(args.against)
    relays = {"this tree": here / "mykube-relay", args.against: there}
    rounds = {name: [] for name in relays}
    for number in range(args.rounds):
        # Who is first alternates.
        for name in list(relays)[::1 if number % 2 else -1]:
            rounds[name].append(one_round(here / "lab", relays[name], args.time))
            print(f"{number + 1}/{args.rounds} {name}: {shown(rounds[name][-1])}", file=sys.stderr, flush=True)
    print(f"The relay without accounts, median of {args.rounds} rounds\n\n| | this tree | {args.against} | ratio, round by round |\n| --- | --- | --- | --- |")
    for measure, unit in MEASURES:
        new, old = ([figures[measure] for figures in rounds[name]] for name in relays)
        ratio = statistics.median(a / b for a, b in zip(new, old) if b)
        print(f"| {measure} | {statistics.median(new):.4g} {unit} | {statistics.median(old):.4g} {unit} | {ratio:.3f} |")
    print("\nThe relay with accounts, SQLite\n")
    for what, figures in with_accounts(here / "lab", here / "mykube-relay", args.time).items():
        print(f"- {what}: {figures['per_s']:.0f} a second, the longest {figures['longest_ms']:.0f} ms")


def build():
    subprocess.run(["cargo", "build", "--locked", "--release", "--quiet", "-p", "mykube-relay-node", "-p", "mykube-lab"], check=True, cwd=ROOT)
    return listing.release(build=False)


def build_against(commit):
    """Built once for each commit, in the cache."""
    cache = Path(os.environ.get("MYKUBE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mykube")
    full = subprocess.run(["git", "rev-parse", f"{commit}^{{commit}}"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    target = cache / "bench" / full[:12]
    program = target / "release/mykube-relay"
    if not program.exists():
        with tempfile.TemporaryDirectory(prefix="mykube-bench-") as tree:
            archive = subprocess.Popen(["git", "archive", full], stdout=subprocess.PIPE, cwd=ROOT)
            subprocess.run(["tar", "-x", "-C", tree], stdin=archive.stdout, check=True)
            if archive.wait():
                sys.exit(f"scripts/bench: no commit {commit}")
            subprocess.run(["cargo", "build", "--locked", "--release", "--quiet", "--bin", "mykube-relay"], check=True, cwd=tree,
                           env=os.environ | {"CARGO_TARGET_DIR": str(target)})
    return program


class Relay:
    """A relay in a folder of its own, and how long it took to listen."""

    def __init__(self, program, config=None):
        self.dir = tempfile.TemporaryDirectory(prefix="mykube-bench-")
        with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as metrics:
            self.address, self.metrics = ("127.0.0.1:%d" % each.getsockname()[1] for each in (free, metrics))
        words = [program, "--listen", self.address, "--metrics-listen", self.metrics, "--data-dir", f"{self.dir.name}/data",
                 "--api-rate", "0", "--sessions-per-address", "100000", "--connections-per-address", "100000", "--output", "json", "-q"]
        if config:
            (Path(self.dir.name) / "relay.toml").write_text(config.format(address=self.address, dir=self.dir.name))
            words += ["--config", f"{self.dir.name}/relay.toml"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MYKUBE_")}
        start = time.monotonic()
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        if not self.process.stdout.readline():
            raise Broken("the relay did not start; see above")
        self.started = (time.monotonic() - start) * 1000

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=START_LIMIT)
        self.dir.cleanup()

    def status(self, name):
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def one_round(lab, program, length):
    with Relay(program) as relay:
        time.sleep(1)  # its threads have started, and rest
        figures = {"start-up": relay.started, "idle": relay.status("VmRSS"), "threads": relay.status("Threads")}
        said = ask(lab, "sessions", "--phases", "flow", "--flow", length, "--relay", relay.address, "--metrics", relay.metrics,
                   "--procs", f"relay={relay.process.pid}")
        return figures | {"throughput": said["flow"]["mb_s"], "CPU of it": said["flow"]["cpu_s_per_gib"]}


def with_accounts(lab, program, length):
    config = 'public_url = "http://{address}"\n[accounts]\n[dev]\nsecret_file = "{dir}/secret"\n'
    with tempfile.NamedTemporaryFile("w", prefix="mykube-bench-") as secret:
        secret.write(secrets.token_hex(16))
        secret.flush()
        with Relay(program, config.replace("{dir}/secret", secret.name)) as relay:
            return ask(lab, "sign-ins", "--relay", relay.address, "--secret-file", secret.name, "--for", length)


def ask(lab, *words):
    done = subprocess.run([lab, *words], capture_output=True, text=True)
    if done.returncode:
        raise Broken(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def shown(figures):
    return ", ".join(f"{name} {figures[name]:.4g} {unit}".rstrip() for name, unit in MEASURES)
