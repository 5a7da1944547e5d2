//! A reader that never reads, beside other streams: how much its sender can write, and what the others notice.

use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Direction, Figures, Latency, Load, MIB, Service,
    echo::{Trips, round_trips},
    mebibytes,
    target::{is_timeout, spawn},
};

/// The figures of stalled readers.
#[derive(Debug, Clone, Serialize)]
pub struct StallFigures {
    /// Round trips on a warm stream before any reader stalled.
    pub before: Latency,
    /// With a stalled reader in the first direction.
    pub one: StallPart,
    /// With stalled readers in both.
    pub both: StallPart,
    /// The first direction.
    pub first: Direction,
    /// MiB that the tunnel and the kernels took for stalled readers, down.
    pub absorbed_down_mib: f64,
    /// The same, up.
    pub absorbed_up_mib: f64,
    /// 10^6 bytes a second that they still took in the second half.
    pub still_absorbs_mb_s: f64,
    /// How much the resident memory of each process grew at most.
    pub growth_mib: Figures,
    /// Whether a new connection works at the end.
    pub works_after: bool,
}

/// The figures of one half.
#[derive(Debug, Clone, Serialize)]
pub struct StallPart {
    /// Round trips on the warm stream.
    #[serde(flatten)]
    pub latency: Latency,
    /// A new connection, one byte there and back; `None` when it failed.
    pub new_connection_us: Option<f64>,
}

impl Load {
    /// Half of `time` with a stalled reader in the first direction, half with one in each.
    #[must_use]
    pub fn stall(&self, first: Direction, time: Duration) -> StallFigures {
        let half = time / 2;
        let mut warm = self.open(Service::Echo).ok();
        let before = ping(&mut warm, half / 2);
        let stats = self.process_stats();
        self.forget_peaks();
        let sourced = self.target.sourced.load(Relaxed);
        let second = if first == Direction::Down { Direction::Up } else { Direction::Down };
        let mut stalled = Vec::new();
        let mut part = |direction| {
            stalled.extend(Stalled::start(self, direction));
            // Normally the buffers are full by then.
            thread::sleep((half / 4).min(Duration::from_secs(1)));
            let latency = ping(&mut warm, half / 2);
            let began = Instant::now();
            let new_connection_us = self.one_byte().ok().map(|()| began.elapsed().as_secs_f64() * 1e6);
            StallPart { latency, new_connection_us }
        };
        let one = part(first);
        let both = part(second);
        let absorbed = || {
            let down = self.target.sourced.load(Relaxed) - sourced;
            (down, stalled.iter().map(|one: &Stalled| one.written.load(Relaxed)).sum::<u64>())
        };
        let (then, since) = (absorbed(), Instant::now());
        thread::sleep(half / 4);
        let now = absorbed();
        let more = (now.0 + now.1 - then.0 - then.1) as f64;
        let still_absorbs_mb_s = more / since.elapsed().as_secs_f64() / 1e6;
        let after = self.process_stats();
        let grown = mebibytes(&after, |it| it.peak_rss_bytes);
        let base = mebibytes(&stats, |it| it.rss_bytes);
        self.target.generation.fetch_add(1, Relaxed);
        stalled.into_iter().for_each(Stalled::end);
        thread::sleep(Duration::from_millis(300));
        StallFigures {
            before,
            one,
            both,
            first,
            absorbed_down_mib: now.0 as f64 / MIB,
            absorbed_up_mib: now.1 as f64 / MIB,
            still_absorbs_mb_s,
            growth_mib: grown
                .into_iter()
                .map(|(name, most)| {
                    let was = base.get(&name).copied().unwrap_or(0.0);
                    (name, most - was)
                })
                .collect(),
            works_after: self.one_byte().is_ok(),
        }
    }
}

/// Round trips on the warm stream, which is dropped once it hangs.
fn ping(warm: &mut Option<TcpStream>, time: Duration) -> Latency {
    let trips = warm.as_mut().map_or_else(Trips::none, |stream| round_trips(stream, 1, time, Duration::ZERO));
    if trips.hang {
        *warm = None;
    }
    trips.latency()
}

/// A stream whose reader reads nothing.
struct Stalled {
    stream: TcpStream,
    stop: Arc<AtomicBool>,
    /// How many bytes our side could write.
    written: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Stalled {
    fn start(load: &Load, direction: Direction) -> Option<Self> {
        let service = if direction == Direction::Down { Service::Source } else { Service::Stalled };
        let stream = load.open(service).ok()?;
        let mut new = Self { stream, stop: Arc::default(), written: Arc::default(), writer: None };
        if direction == Direction::Up {
            let mut to = new.stream.try_clone().ok()?;
            to.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
            let (stop, written) = (Arc::clone(&new.stop), Arc::clone(&new.written));
            new.writer = spawn("lab-stall", move || {
                let block = vec![0x33; 64 << 10];
                while !stop.load(Relaxed) {
                    match to.write(&block) {
                        Ok(0) => break,
                        Ok(count) => _ = written.fetch_add(count as u64, Relaxed),
                        Err(error) if is_timeout(&error) => {}
                        Err(_) => break,
                    }
                }
            })
            .ok();
        }
        Some(new)
    }

    fn end(self) {
        self.stop.store(true, Relaxed);
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(writer) = self.writer {
            let _ = writer.join();
        }
    }
}
