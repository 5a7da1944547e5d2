# The few commands people type. `just` alone lists them.

default:
    @just --list

# The main job: relay, server, client, real kubectl through the tunnel.
demo *args:
    scripts/demo {{args}}

# Every test.
test *args:
    scripts/test {{args}}

# k9s on a terminal, through guarded mode. Compiles k9s on first use: five minutes.
k9s:
    scripts/test --k9s

# 1 GiB of kubectl cp over a slow line: how long, and how much memory it takes.
cp-1g:
    scripts/test --cp-1g

# Every operation under every fault, for long and with 1 GiB copied, and bore and kubectl alone beside: most of an hour.
faults:
    scripts/test --faults

# 100 sessions, guarded and shared, and a fault every few seconds, for half an hour.
soak:
    scripts/test --soak

# What CI runs.
ci:
    .ci/run

# How fast: the limit, mykube and its peers, side by side. `just bench --full` writes docs/benchmarks.md.
bench *args:
    scripts/bench {{args}}

# Where the processor time of a bulk stream goes.
profile *args:
    scripts/profile {{args}}

# Breaks a pure crate in one place at a time, and lists what no test notices: `just mutants protocol --shard 0/16`. Hours.
mutants *args:
    scripts/mutants {{args}}

# A real Kubernetes on loopback: up, down, status, env, smoke.
cluster *args:
    scripts/cluster {{args}}

# Quick checks while editing.
check:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings

# Explores a fuzz target for a minute: `just fuzz session`. Needs nightly and cargo-fuzz.
fuzz target seconds="60":
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}

# Simulated trouble for resume, beyond what every test run does: `just simulate 100000 [first seed]`.
simulate schedules first="0":
    MYKUBE_SIM_SCHEDULES={{schedules}} MYKUBE_SIM_FIRST={{first}} cargo test -p mykube-sim --test simulation -- --nocapture
