"""The table a person reads, docs/benchmarks.md, and its plots."""
import html

from figures import TARGETS, Table, met

# header, measure, format
COLUMNS = [
    [("1 down MB/s", "bulk_1_down.mb_s", "{:.0f}"), ("1 up MB/s", "bulk_1_up.mb_s", "{:.0f}"),
     ("16 down", "bulk_16_down.mb_s", "{:.0f}"), ("16 up", "bulk_16_up.mb_s", "{:.0f}"),
     ("200 down", "bulk_200_down.mb_s", "{:.0f}"), ("200 up", "bulk_200_up.mb_s", "{:.0f}"),
     ("CPU s/GiB down", "bulk_1_down.cpu_s_per_gib", "{:.2f}"), ("CPU s/GiB up", "bulk_1_up.cpu_s_per_gib", "{:.2f}")],
    [("1 B p50 us", "echo_1.p50_us", "{:.0f}"), ("p99", "echo_1.p99_us", "{:.0f}"),
     ("64 B p50 us", "echo_64.p50_us", "{:.0f}"), ("p99", "echo_64.p99_us", "{:.0f}"),
     ("1 KiB p50 us", "echo_1024.p50_us", "{:.0f}"), ("p99", "echo_1024.p99_us", "{:.0f}"),
     ("conn/s", "connections.per_s", "{:.0f}"), ("p99 us under down", "loaded_down.p99_us", "{:.0f}"),
     ("under up", "loaded_up.p99_us", "{:.0f}")],
    [("p99 us before", "stall.before.p99_us", "{:.0f}"), ("one stalled", "stall.one.p99_us", "{:.0f}"),
     ("both", "stall.both.p99_us", "{:.0f}"), ("taken in down MiB", "stall.absorbed_down_mib", "{:.1f}"),
     ("up", "stall.absorbed_up_mib", "{:.1f}"), ("still MB/s", "stall.still_absorbs_mb_s", "{:.1f}"),
     ("idle MiB", "+idle_rss_mib", "{:.0f}"), ("200 streams MiB", "+bulk_200_down.peak_rss_mib", "{:.0f}"),
     ("stall growth MiB", "+stall.growth_mib", "{:.0f}")],
]
def lines(tcp):
    return [("200 ms, 500 Mbit/s: down MB/s", f"fat{tcp}.bulk_1_down.mb_s", "{:.1f}"), ("up MB/s", f"fat{tcp}.bulk_1_up.mb_s", "{:.1f}"),
            ("50 ms, 10 Mbit/s: keystroke p50 ms", f"slow{tcp}.keystrokes.p50_us", "{:.1f}"),
            ("p99 ms", f"slow{tcp}.keystrokes.p99_us", "{:.1f}"),
            ("bulk beside it MB/s", f"slow{tcp}.keystrokes.bulk_mb_s", "{:.2f}")]


RELAY = [("idle KiB a session", "relay.idle.kib_each", "{:.1f}"), ("empty relay MiB", "relay.idle.empty_mib", "{:.1f}"),
         ("9,000 idle MiB", "relay.idle.rss_mib", "{:.0f}"), ("opened a second", "relay.leftover.per_s", "{:.0f}"),
         ("left: sessions", "relay.leftover.sessions", "{:.0f}"), ("descriptors", "relay.leftover.descriptors", "{:.0f}"),
         ("threads", "relay.leftover.threads", "{:.0f}"), ("MiB", "relay.leftover.grown_mib", "{:.2f}")]
KUBECTL = [("kubectl get nodes, median ms", "cluster.get.p50_ms", "{:.0f}"), ("p90 ms", "cluster.get.p90_ms", "{:.0f}")]
SECTIONS = [("Lines", lines("")), ("Lines, with cubic", lines("-cubic")), ("The relay alone", RELAY), ("A real cluster", KUBECTL)]
PLOTS = [("throughput", "One stream down, MB/s", "bulk_1_down.mb_s", 0), ("cpu", "CPU seconds a GiB, one stream down", "bulk_1_down.cpu_s_per_gib", 2),
         ("echo", "64-byte echo, p50, us", "echo_64.p50_us", 0), ("loaded", "1-byte echo beside a bulk stream, p99, us", "loaded_down.p99_us", 0)]
COLOURS = {"limit": "#8a8f98", "us": "#2f7ed8", "peer": "#c98b2b"}


def value(table, setup, measure):
    """A median; with + in front, the sum over processes."""
    return table.total(setup, measure[1:]) if measure.startswith("+") else table.get(setup, measure)


def markdown_table(table, setups, columns):
    shown = [name for name in setups if any(value(table, name, measure) is not None for _, measure, _ in columns)]
    if not shown:
        return ""
    lines = ["| | " + " | ".join(head for head, _, _ in columns) + " |", "|---|" + "---:|" * len(columns)]
    for name in shown:
        cells = []
        for _, measure, form in columns:
            found = value(table, name, measure)
            # Keystrokes are measured in microseconds and read in milliseconds.
            scale = 1000 if ".keystrokes.p" in measure else 1
            cells.append("" if found is None else form.format(found / scale))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio_table(ratios):
    lines = ["| key | | target | measured | |", "|---|---|---:|---:|---|"]
    for key, (target, way, what) in TARGETS.items():
        found = ratios.get(key)
        bound = f"at {way} {target:g}"
        verdict = "not measured in this run" if found is None else "met" if met(key, found) else "**missed**"
        lines.append(f"| `{key}` | {what} | {bound} | {'' if found is None else f'{found:g}'} | {verdict} |")
    return "\n".join(lines)


def document(result, setups):
    """docs/benchmarks.md"""
    table = Table(result["rows"])
    names = list(setups)
    parts = ["# Benchmarks", "",
             "Written by `scripts/bench`; do not edit. Everything on one machine in one run, rounds interleaved, medians. All rounds' "
             "minima and maxima are in [benchmarks.json](benchmarks.json).", "",
             f"    {result['command']}", "",
             f"{result['when']}, {result['cores']} cores ({result['cpu']}), Linux {result['kernel']} with TCP {result['tcp']}, {result['rounds']} rounds, "
             f"`{result['version']}`. Load, tunnel and target share these cores.", "",
             "## Targets", "", ratio_table(result["ratios"]), "", "## Loopback", ""]
    for columns in COLUMNS:
        block = markdown_table(table, names, columns)
        parts += [block, ""] if block else []
    for title, columns in SECTIONS:
        block = markdown_table(table, names, columns)
        parts += [f"## {title}", "", block, ""] if block else []
    parts += ["## Plots", ""] + [f"![{title}](benchmarks-{name}.svg)" for name, title, _, _ in PLOTS] + [""]
    parts += ["## What is compared", "", "| | |", "|---|---|"]
    versions = result["versions"]
    for name in names:
        program = setups[name].get("peer")
        parts.append(f"| {name} | {setups[name]['about']}{f' ({versions[program]})' if program in versions else ''} |")
    for name, why in result["missing"].items():
        parts.append(f"| {name} | **missing: {why}** |")
    parts += ["", "## What went wrong", ""]
    parts += [f"- {name}: {'; '.join(flaws)}" for name, flaws in result["flaws"].items() if flaws] or ["Nothing."]
    parts += ["", "## Reading it", "",
              "- MB are 10^6 bytes at the receiver. CPU is of the tunnel's processes, without load, target and what stands for kubectl "
              "and the API server; it is the steadiest figure, for throughput is what is left of the cores.",
              "- `taken in`: bytes a sender could push towards a reader that reads nothing, kernel buffers included (some MiB for each "
              "TCP connection on the way). The load's own sockets keep 256 KiB unsent and, on loopback, are not paced.",
              "- Memory is resident, all processes of the tunnel together, shared pages counted once for each.",
              "- Lines: the tunnel's TCP connections are as old as the session and carry all its streams, those of `direct` are new and one "
              "for each stream. BBR sends four packets a round trip for 200 ms every 10 s unless it saw the line empty "
              "(PROBE_RTT), which nothing that shares its connection escapes: where that falls into what is measured it is the p99 of a "
              "keystroke, so that one run says little. With cubic a connection that has seen the other direction's "
              "queue may leave slow start at a few packets (HyStart): then `up` after `down` is slow there. Linux sets it for a host "
              "(`net.ipv4.tcp_congestion_control`) or a route (`ip route ... congctl`).",
              f"- Cores used by everything else meanwhile, at the worst: {result['foreign_cores_max']:.1f}. Above 0.2, distrust latencies.", ""]
    return "\n".join(parts)


def plot(title, bars, digits):
    """Horizontal bars with their range; [(name, kind, median, min, max)]"""
    left, width, step, top = 150, 470, 26, 44
    most = max((high for *_, high in bars), default=0) or 1
    height = top + step * len(bars) + 8
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" viewBox="0 0 720 {height}" '
           'font-family="sans-serif" font-size="13">', f'<rect width="720" height="{height}" fill="#ffffff"/>',
           f'<text x="12" y="24" font-size="15" font-weight="bold" fill="#222">{html.escape(title)}</text>']
    for row, (name, kind, median, low, high) in enumerate(bars):
        y = top + row * step
        at = lambda amount: left + width * amount / most
        out += [f'<text x="{left - 8}" y="{y + 13}" text-anchor="end" fill="#222">{html.escape(name)}</text>',
                f'<rect x="{left}" y="{y}" width="{max(at(median) - left, 1):.1f}" height="18" fill="{COLOURS[kind]}"/>',
                f'<path d="M{at(low):.1f} {y + 9}H{at(high):.1f}" stroke="#222" stroke-width="1.5"/>',
                f'<text x="{at(high) + 6:.1f}" y="{y + 13}" fill="#222">{median:.{digits}f}</text>']
    return "\n".join(out + ["</svg>", ""])


def plots(result, setups):
    """{file name: SVG}"""
    out = {}
    for name, title, measure, digits in PLOTS:
        rows = {row["setup"]: row for row in result["rows"] if row["measure"] == measure}
        bars = [(setup, setups[setup]["kind"], rows[setup]["median"], rows[setup]["min"], rows[setup]["max"])
                for setup in setups if setup in rows]
        out[f"benchmarks-{name}.svg"] = plot(title, bars, digits)
    return out
