"""The setups of setups.toml, and the build that they start."""
import os, subprocess, tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def release(build=True):
    """The folder of the release build, made first."""
    if build:
        subprocess.run(["cargo", "build", "--locked", "--release", "--quiet", "-p", "mykube", "-p", "mykube-lab"], check=True, cwd=ROOT)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def read(more=()):
    """{name: table}, of setups.toml and more files."""
    listed = {}
    for file in [ROOT / "scripts/lib/bench/setups.toml", *more]:
        for table in tomllib.loads(Path(file).read_text())["setup"]:
            listed[table["name"]] = inherit(table, listed)
    return listed


def inherit(table, listed):
    """`like`: another setup's processes and files, with words appended to some commands."""
    if "like" not in table:
        return table
    base = listed[table["like"]]
    appended = table.get("append", {})
    processes = [process | {"command": " ".join(filter(None, [process["command"], appended.get(process["name"])]))}
                 for process in base["process"]]
    return base | table | {"process": processes}
