"""Rounds become rows (median, min, max), and rows become the ratios that are promised."""
import statistics

# key: (target, "least" or "most", what it is)
TARGETS = {
    "bulk_ws_chain": (0.60, "least", "one stream, shared over ws, of a chain of three plain TCP proxies"),
    "cpu_ws_chain": (1.7, "most", "its CPU seconds a GiB, times the chain's"),
    "bulk_wss_chain": (0.40, "least", "one stream, shared over wss, of the chain"),
    "cpu_wss_chain": (3, "most", "its CPU seconds a GiB, times the chain's"),
    "bulk_guarded_chain": (0.30, "least", "one stream, guarded over wss, of the chain"),
    "e2e_peers": (2, "least", "throughput, times the best end-to-end or three-hop peer's, on the worst row"),
    "hop_peers_cpu": (1, "most", "CPU a GiB and hop, times the best encrypted peer's of two hops"),
    "hop_peers_bulk": (1, "least", "one stream, times the best of them"),
    "hop_peers_connections": (1, "least", "new connections a second, times the best of them"),
    "hop_peers_p99": (1, "most", "p99 beside a bulk stream, times the best of them"),
    "hop_peers_memory": (1, "most", "memory of all processes under load, times the best of them"),
    "echo64_p50_chain": (2, "most", "64-byte echo, median, times the chain's"),
    "echo64_p99_chain": (3, "most", "64-byte echo, p99, times the chain's"),
    "streams200_self": (0.8, "least", "200 streams together, of our own single stream"),
    "fat200ms_line": (0.9, "least", "200 ms and 500 Mbit/s, of plain TCP there"),
    "keystroke_over_rtt_ms": (60, "most", "keystroke p99 under bulk at 10 Mbit/s and 50 ms, above the RTT, ms"),
    "fat200ms_line_cubic": (0.9, "least", "the line of fat200ms_line, both with cubic"),
    "keystroke_over_rtt_ms_cubic": (60, "most", "the keystroke of keystroke_over_rtt_ms, with cubic, ms"),
    "stalled_p99": (2, "most", "another stream's p99 beside a stalled reader, times without"),
    "idle_kib_plain": (5, "most", "relay memory an idle session (both sockets), KiB"),
    "idle_kib_tls": (20, "most", "the same with TLS, KiB"),
    "leftover": (0, "most", "sessions, descriptors, threads and MiB left of 10,000 sessions opened, paired and closed"),
}
KEYSTROKE_RTT_MS = 50
# Of a line's scene: the machine's own congestion control, and cubic.
TCPS = ("", "-cubic")
E2E_PEERS = ("ssh", "fowl", "wormhole")
HOP_PEERS = ("penguin", "rathole-noise", "rathole-wss")
BULK = [f"bulk_{n}_{way}.mb_s" for n in (1, 16, 200) for way in ("down", "up")]
LEFT_OUT = ("count", "max_us")


def flatten(figures, prefix=""):
    """Every number by its path, booleans as 1 and 0."""
    for name, value in figures.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from flatten(value, path + ".")
        elif isinstance(value, (bool, int, float)) and name not in LEFT_OUT:
            yield path, float(value)


def rows(results):
    """results: {(scene, setup): [figures of a round or {"error": ...}]}"""
    out = []
    for (scene, setup), rounds in results.items():
        seen = {}
        for figures in rounds:
            for path, value in flatten(figures):
                seen.setdefault(path, []).append(value)
        where = "" if scene == "loopback" else scene + "."
        out += [{"setup": setup, "measure": where + path, "median": round(statistics.median(values), 4),
                 "min": round(min(values), 4), "max": round(max(values), 4), "rounds": len(values)}
                for path, values in seen.items()]
    return out


class Table:
    """Medians by setup and measure."""

    def __init__(self, rows):
        self.medians = {(row["setup"], row["measure"]): row["median"] for row in rows}

    def get(self, setup, measure):
        return self.medians.get((setup, measure))

    def total(self, setup, measure):
        """The sum over processes."""
        found = [median for (name, path), median in self.medians.items() if name == setup and path.startswith(measure + ".")]
        return sum(found) if found else None

    def over(self, setup, other, measures, worst):
        """The worst of the ratios of these measures, or None when there is none."""
        pairs = [(self.get(setup, measure), self.get(other, measure)) for measure in measures]
        found = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
        return worst(found) if found else None


def ratios(rows):
    """Each key of TARGETS that this run has what it needs for."""
    table = Table(rows)
    one = ["bulk_1_down.mb_s", "bulk_1_up.mb_s"]
    cpu = ["bulk_1_down.cpu_s_per_gib", "bulk_1_up.cpu_s_per_gib"]
    out = {
        "bulk_ws_chain": table.over("shared-ws", "chain3", one, min),
        "cpu_ws_chain": table.over("shared-ws", "chain3", cpu, max),
        "bulk_wss_chain": table.over("shared-wss", "chain3", one, min),
        "cpu_wss_chain": table.over("shared-wss", "chain3", cpu, max),
        "bulk_guarded_chain": worst_of([table.over(setup, "chain3", one, min)
                                        for setup in ("guarded-upgraded", "guarded-bodies")], min),
        "e2e_peers": e2e_peers(table),
        **hop_peers(table),
        "streams200_self": worst_of([part(table, "shared-wss", f"bulk_200_{way}.mb_s", f"bulk_1_{way}.mb_s")
                                     for way in ("down", "up")], min),
        **{f"fat200ms_line{tcp.replace('-', '_')}": table.over("shared-wss", "direct", [f"fat{tcp}.{measure}" for measure in one], min)
           for tcp in TCPS},
        "stalled_p99": worst_of([part(table, setup, f"stall.{half}.p99_us", "stall.before.p99_us")
                                 for setup in ("shared-ws", "shared-wss") for half in ("one", "both")], max),
    }
    for percentile in ("p50", "p99"):
        out[f"echo64_{percentile}_chain"] = worst_of(
            [table.over(setup, "chain3", [f"echo_64.{percentile}_us"], max) for setup in ("shared-ws", "shared-wss")], max)
    out["idle_kib_plain"] = table.get("relay-plain", "relay.idle.kib_each")
    out["idle_kib_tls"] = table.get("relay-tls", "relay.idle.kib_each")
    out["leftover"] = worst_of([table.get(setup, "relay.leftover.left") for setup in ("relay-plain", "relay-tls")], max)
    for tcp in TCPS:
        keystroke = table.get("shared-wss", f"slow{tcp}.keystrokes.p99_us")
        out["keystroke_over_rtt_ms" + tcp.replace("-", "_")] = None if keystroke is None else keystroke / 1000 - KEYSTROKE_RTT_MS
    return {key: round(out[key], 3) for key in TARGETS if out.get(key) is not None}


def e2e_peers(table):
    found = []
    for measure in BULK:
        best = max((table.get(peer, measure) or 0 for peer in E2E_PEERS), default=0)
        ours = table.get("shared-wss", measure)
        if best and ours is not None:
            found.append(ours / best)
    return min(found) if found else None


def hop_peers(table):
    """Against the best of them in each respect. We pass three processes, which are three hops; they pass two."""
    def best(measures, choose, worst, read=table.get):
        found = []
        for measure in measures:
            theirs = [value for value in (read(peer, measure) for peer in HOP_PEERS) if value]
            ours = read("shared-wss", measure)
            if theirs and ours is not None:
                found.append(ours / choose(theirs))
        return worst_of(found, worst)

    cpu = best(["bulk_1_down.cpu_s_per_gib", "bulk_1_up.cpu_s_per_gib"], min, max)
    return {
        "hop_peers_cpu": None if cpu is None else cpu * 2 / 3,
        "hop_peers_bulk": best(["bulk_1_down.mb_s", "bulk_1_up.mb_s"], max, min),
        "hop_peers_connections": best(["connections.per_s"], max, min),
        "hop_peers_p99": best(["loaded_down.p99_us", "loaded_up.p99_us"], min, max),
        "hop_peers_memory": best(["bulk_16_down.peak_rss_mib", "bulk_200_down.peak_rss_mib"], min, max, table.total),
    }


def part(table, setup, measure, of):
    ours, whole = table.get(setup, measure), table.get(setup, of)
    return ours / whole if ours is not None and whole else None


def worst_of(values, worst):
    found = [value for value in values if value is not None]
    return worst(found) if found else None


def met(key, value):
    target, way, _ = TARGETS[key]
    return value >= target if way == "least" else value <= target


def flaws(rounds):
    """What went wrong with a setup, in words."""
    out = set()
    for figures in rounds:
        if "error" in figures:
            out.add(figures["error"])
        integrity = figures.get("integrity", {})
        out |= {words for name, words in (("same", "bytes differ"), ("complete", "an echo of 8 MiB is incomplete"),
                                          ("half_close", "a half-close loses data")) if integrity.get(name) is False}
        out |= {f"{name} died" for name in figures.get("died", [])}
        out |= {f"{path.removesuffix('.hang')} hangs" for path, value in flatten(figures) if path.endswith(".hang") and value}
        if "stall" in figures and not figures["stall"]["works_after"]:
            out.add("dead after a stalled reader")
        if any(path.endswith("failed") and value for path, value in flatten(figures)):
            out.add("connections fail")
    return sorted(out)
