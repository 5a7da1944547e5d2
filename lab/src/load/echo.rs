//! Round trips: how long they take, alone, on new connections, and beside a bulk stream.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Direction, Figures, Load, Service, bulk::Streams, exchange};

/// Most times that are kept: more would only take memory.
const MOST: usize = 400_000;
/// Round trips before the first counted one.
const WARM_UP: Duration = Duration::from_millis(100);

/// How long round trips took.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Half were faster.
    pub p50_us: Option<f64>,
    /// 99 of 100 were faster.
    pub p99_us: Option<f64>,
    /// The slowest.
    pub max_us: Option<f64>,
    /// How many round trips.
    pub count: usize,
    /// Whether one never came back, which ended the measurement.
    pub hang: bool,
}

/// The results of new connections.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionFigures {
    /// Opened, used for a byte there and back, and closed, one after another.
    pub per_s: f64,
    /// Times from start to reply.
    #[serde(flatten)]
    pub latency: Latency,
    /// How many failed; the second failure ends the measurement.
    pub failed: u32,
    /// CPU milliseconds of the tunnel for each connection.
    pub cpu_ms_each: Figures,
    /// Cores that other processes used meanwhile.
    pub foreign_cores: f64,
}

/// Round trips beside a bulk stream.
#[derive(Debug, Clone, Serialize)]
pub struct LoadedFigures {
    /// Times of the round trips.
    #[serde(flatten)]
    pub latency: Latency,
    /// Rate of the bulk stream meanwhile, in 10^6 bytes a second at the receiver.
    pub bulk_mb_s: f64,
    /// Cores that other processes used meanwhile.
    pub foreign_cores: f64,
}

impl Load {
    /// Messages of this size there and back on one stream, one after another, or one each `every`.
    #[must_use]
    pub fn echo(&self, size: usize, time: Duration, every: Duration) -> Latency {
        match self.open(Service::Echo) {
            Ok(mut stream) => {
                let warm = round_trips(&mut stream, size, WARM_UP, Duration::ZERO);
                if warm.hang { warm.latency() } else { round_trips(&mut stream, size, time, every).latency() }
            }
            Err(_) => Trips::none().latency(),
        }
    }

    /// New connections, one after another.
    #[must_use]
    pub fn connections(&self, time: Duration) -> ConnectionFigures {
        let mut trips = Trips { nanos: Vec::new(), hang: false };
        let mut failed = 0;
        let before = self.process_stats();
        let start = Instant::now();
        // Bounded, because closed connections keep their port for a minute.
        while start.elapsed() < time && trips.nanos.len() < 6000 && failed < 2 {
            let began = Instant::now();
            match self.one_byte() {
                Ok(()) => trips.nanos.push(nanos(began.elapsed())),
                Err(_) => failed += 1,
            }
        }
        let took = start.elapsed().as_secs_f64();
        let after = self.process_stats();
        let count = trips.nanos.len();
        let cpu = after.cpu_since(&before);
        ConnectionFigures {
            per_s: count as f64 / took,
            latency: trips.latency(),
            failed,
            cpu_ms_each: cpu.into_iter().map(|(name, s)| (name, s * 1000.0 / count.max(1) as f64)).collect(),
            foreign_cores: after.foreign_cores_since(&before),
        }
    }

    /// Messages of this size there and back while another stream is as fast as it can be; bulk starts `warm` before.
    #[must_use]
    pub fn echo_under_bulk(
        &self,
        direction: Direction,
        size: usize,
        warm: Duration,
        time: Duration,
        every: Duration,
    ) -> LoadedFigures {
        let stream = self.open(Service::Echo);
        let bulk = Streams::start(self, direction, 1);
        thread::sleep(warm);
        let (before, start, moved) = (self.process_stats(), Instant::now(), bulk.total());
        let trips = match stream {
            Ok(mut stream) => round_trips(&mut stream, size, time, every),
            Err(_) => Trips::none(),
        };
        let moved = bulk.total() - moved;
        let took = start.elapsed().as_secs_f64();
        let after = self.process_stats();
        bulk.stop();
        LoadedFigures {
            latency: trips.latency(),
            bulk_mb_s: moved as f64 / took / 1e6,
            foreign_cores: after.foreign_cores_since(&before),
        }
    }
}

/// The times of single round trips.
pub(super) struct Trips {
    nanos: Vec<u64>,
    pub(super) hang: bool,
}

impl Trips {
    pub(super) fn none() -> Self {
        Self { nanos: Vec::new(), hang: true }
    }

    pub(super) fn latency(mut self) -> Latency {
        self.nanos.sort_unstable();
        let at = |part: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
            let index = ((self.nanos.len() as f64 * part) as usize).min(self.nanos.len().checked_sub(1)?);
            self.nanos.get(index).map(|nanos| *nanos as f64 / 1000.0)
        };
        Latency { p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0), count: self.nanos.len(), hang: self.hang }
    }
}

/// Sends and receives until the time is over, or no reply comes within the stream's timeout.
pub(super) fn round_trips(stream: &mut TcpStream, size: usize, time: Duration, every: Duration) -> Trips {
    let message = vec![7; size];
    let mut reply = vec![0; size];
    let mut trips = Trips { nanos: Vec::with_capacity(1 << 16), hang: false };
    let start = Instant::now();
    while start.elapsed() < time && trips.nanos.len() < MOST {
        let began = Instant::now();
        trips.hang = exchange(stream, &message, &mut reply).is_err();
        trips.nanos.push(nanos(began.elapsed()));
        if trips.hang {
            break;
        }
        thread::sleep(every.saturating_sub(began.elapsed()));
    }
    trips
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_those_of_the_sorted_trips() {
        let nanos = (1..=200).rev().map(|us| us * 1000).collect();
        let latency = Trips { nanos, hang: false }.latency();
        assert_eq!((latency.p50_us, latency.p99_us, latency.max_us), (Some(101.0), Some(199.0), Some(200.0)));
        assert_eq!((latency.count, latency.hang), (200, false));
        let none = Trips::none().latency();
        assert_eq!((none.p50_us, none.max_us, none.count, none.hang), (None, None, 0, true));
    }
}
