//! The relay's metrics, in the Prometheus text format. No label names a session.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use mykube_protocol::Role;
use mykube_relay_core::registry::{Count, Counts};

use crate::logs;

/// The result of a pair request or attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PairResult {
    Claimed,
    NotFound,
    RateLimited,
    Paired,
    Refused,
    Burned,
}

const PAIR_RESULTS: [&str; 6] = ["claimed", "not_found", "rate_limited", "paired", "refused", "burned"];
const RECONNECT_REASONS: [&str; 3] = ["replaced", "returned", "readmitted"];
const DIRECTIONS: [&str; 2] = ["agent_to_client", "client_to_agent"];

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    forwarded: [AtomicU64; 2],
    pair_attempts: [AtomicU64; 6],
    reconnects: [AtomicU64; 3],
    buffered: AtomicU64,
    backpressure_micros: AtomicU64,
}

/// While it lives, a direction waits for a slow reader; its time is counted when it is dropped.
pub(crate) struct Backpressure<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl Drop for Backpressure<'_> {
    fn drop(&mut self) {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.metrics.backpressure_micros.fetch_add(micros, Relaxed);
    }
}

impl Metrics {
    pub(crate) fn forwarded(&self, from: Role, bytes: u64) {
        self.forwarded[usize::from(from == Role::Client)].fetch_add(bytes, Relaxed);
    }

    pub(crate) fn pair_attempt(&self, result: PairResult) {
        self.pair_attempts[result as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn count(&self, count: Count) {
        match count {
            Count::Paired => self.pair_attempt(PairResult::Paired),
            Count::Refused => self.pair_attempt(PairResult::Refused),
            Count::Burned => self.pair_attempt(PairResult::Burned),
            Count::Replaced => _ = self.reconnects[0].fetch_add(1, Relaxed),
            Count::Returned => _ = self.reconnects[1].fetch_add(1, Relaxed),
            Count::Readmitted => _ = self.reconnects[2].fetch_add(1, Relaxed),
        }
    }

    /// Frames held by the relay.
    pub(crate) fn buffered(&self, bytes: usize, more: bool) {
        if more {
            self.buffered.fetch_add(bytes as u64, Relaxed);
        } else {
            self.buffered.fetch_sub(bytes as u64, Relaxed);
        }
    }

    /// Counts the time until it is dropped.
    pub(crate) fn backpressure(&self) -> Backpressure<'_> {
        Backpressure { metrics: self, since: Instant::now() }
    }

    /// The Prometheus text exposition format, version 0.0.4.
    pub(crate) fn render(&self, sessions: Counts) -> String {
        let mut out = String::new();
        let Counts { waiting, paired, away, legacy } = sessions;
        let states = [("waiting", waiting), ("paired", paired), ("away", away), ("plain", legacy)];
        let states = states.map(|(state, n)| (state, n as u64));
        family(&mut out, "sessions", "gauge", "Sessions by state.", "state", states);
        let labelled = |names: &'static [&'static str], values: &[AtomicU64]| {
            let values: Vec<_> = names.iter().copied().zip(values.iter().map(|value| value.load(Relaxed))).collect();
            values
        };
        let forwarded = labelled(&DIRECTIONS, &self.forwarded);
        family(&mut out, "forwarded_bytes_total", "counter", "Frame payload forwarded.", "direction", forwarded);
        let attempts = labelled(&PAIR_RESULTS, &self.pair_attempts);
        family(
            &mut out,
            "pair_attempts_total",
            "counter",
            "Pair requests and what became of them.",
            "result",
            attempts,
        );
        let reconnects = labelled(&RECONNECT_REASONS, &self.reconnects);
        family(&mut out, "reconnects_total", "counter", "Sockets that took up a session again.", "reason", reconnects);
        single(&mut out, "buffered_bytes", "gauge", "Frames held for slow readers.", &self.buffered.load(Relaxed));
        let seconds = Duration::from_micros(self.backpressure_micros.load(Relaxed)).as_secs_f64();
        single(&mut out, "backpressure_seconds_total", "counter", "Time spent waiting for slow readers.", &seconds);
        let dropped = logs::dropped();
        single(&mut out, "log_lines_dropped_total", "counter", "Log lines nobody took in time.", &dropped);
        out
    }
}

fn family(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) {
    let _ = writeln!(out, "# HELP mykube_relay_{name} {help}\n# TYPE mykube_relay_{name} {kind}");
    for (value, n) in values {
        let _ = writeln!(out, "mykube_relay_{name}{{{label}=\"{value}\"}} {n}");
    }
}

fn single(out: &mut String, name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display) {
    let _ = writeln!(
        out,
        "# HELP mykube_relay_{name} {help}\n# TYPE mykube_relay_{name} {kind}\nmykube_relay_{name} {value}"
    );
}
