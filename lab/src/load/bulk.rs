//! Streams that move bytes as fast as they can.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Figures, Load, Service, mebibytes,
    target::{is_timeout, spawn},
};

const GIB: f64 = 1_073_741_824.0;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the target to the client; counted at the client.
    Down,
    /// From the client to the target; counted at the target.
    Up,
}

/// The results of bulk streams, and their cost.
#[derive(Debug, Clone, Serialize)]
pub struct BulkFigures {
    /// All streams together, 10^6 bytes a second at the receiver.
    pub mb_s: f64,
    /// CPU seconds of the tunnel for a GiB.
    pub cpu_s_per_gib: Option<f64>,
    /// CPU seconds for a GiB, by process.
    pub cpu_by_process: Figures,
    /// CPU seconds of this tool for a GiB.
    pub tool_cpu_s_per_gib: Option<f64>,
    /// Cores that other processes used meanwhile.
    pub foreign_cores: f64,
    /// The most resident memory of each process meanwhile.
    pub peak_rss_mib: Figures,
    /// Jain's index of the streams' bytes: 1 when all got the same.
    pub fairness: Option<f64>,
    /// Streams that could not be opened.
    pub failed: usize,
}

impl Load {
    /// Runs this many streams as fast as they go: `warm` uncounted, then `time`.
    #[must_use]
    pub fn bulk(&self, direction: Direction, streams: usize, warm: Duration, time: Duration) -> BulkFigures {
        let bulk = Streams::start(self, direction, streams);
        thread::sleep(warm);
        self.forget_peaks();
        let (before, moved, each) = (self.process_stats(), bulk.total(), bulk.each());
        thread::sleep(time);
        let moved = bulk.total() - moved;
        let each = bulk.each().iter().zip(each).map(|(now, then)| (now - then) as f64).collect::<Vec<_>>();
        let after = self.process_stats();
        let failed = bulk.failed;
        bulk.stop();
        let gib = moved as f64 / GIB;
        let per_gib = |seconds: f64| (gib > 0.0).then(|| seconds / gib);
        let cpu = after.cpu_since(&before);
        BulkFigures {
            mb_s: moved as f64 / (after.at - before.at).as_secs_f64() / 1e6,
            cpu_s_per_gib: per_gib(cpu.values().fold(0.0, |sum, one| sum + one)),
            cpu_by_process: cpu.into_iter().filter_map(|(name, s)| Some((name, per_gib(s)?))).collect(),
            tool_cpu_s_per_gib: per_gib(after.own_cpu_s - before.own_cpu_s),
            foreign_cores: after.foreign_cores_since(&before),
            peak_rss_mib: mebibytes(&after, |it| it.peak_rss_bytes),
            fairness: fairness(&each),
            failed,
        }
    }
}

/// 1 when all are equal, 1/n when one has all.
fn fairness(each: &[f64]) -> Option<f64> {
    let squares: f64 = each.iter().map(|one| one * one).sum();
    (squares > 0.0).then(|| each.iter().sum::<f64>().powi(2) / (each.len() as f64 * squares))
}

/// Running streams.
pub(super) struct Streams<'a> {
    load: &'a Load,
    direction: Direction,
    stop: Arc<AtomicBool>,
    moved: Arc<Vec<AtomicU64>>,
    threads: Vec<JoinHandle<()>>,
    failed: usize,
}

impl<'a> Streams<'a> {
    pub(super) fn start(load: &'a Load, direction: Direction, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let moved: Arc<Vec<AtomicU64>> = Arc::new((0..count).map(|_| AtomicU64::new(0)).collect());
        let threads: Vec<_> = (0..count)
            .filter_map(|at| {
                let stream = load
                    .open(match direction {
                        Direction::Down => Service::Source,
                        Direction::Up => Service::Sink,
                    })
                    .ok()?;
                let (stop, moved) = (Arc::clone(&stop), Arc::clone(&moved));
                spawn("lab-bulk", move || run(stream, direction, &stop, &moved[at])).ok()
            })
            .collect();
        let failed = count - threads.len();
        Self { load, direction, stop, moved, threads, failed }
    }

    /// Bytes at the receivers, so far.
    pub(super) fn total(&self) -> u64 {
        match self.direction {
            Direction::Down => self.each().iter().sum(),
            Direction::Up => self.load.target.sunk.load(Relaxed),
        }
    }

    /// Bytes of each stream at the client.
    fn each(&self) -> Vec<u64> {
        self.moved.iter().map(|one| one.load(Relaxed)).collect()
    }

    /// Ends them, and waits until none moves a byte any more, but at most a few seconds.
    pub(super) fn stop(self) {
        self.stop.store(true, Relaxed);
        self.load.target.generation.fetch_add(1, Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.load.settle();
    }
}

impl Load {
    fn settle(&self) {
        let seen = || (self.target.sunk.load(Relaxed), self.target.sourced.load(Relaxed));
        let start = Instant::now();
        let mut last = seen();
        while start.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(150));
            let now = seen();
            if now == last {
                break;
            }
            last = now;
        }
    }
}

fn run(mut stream: TcpStream, direction: Direction, stop: &AtomicBool, moved: &AtomicU64) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
    let mut buffer = match direction {
        Direction::Down => vec![0; 128 << 10],
        Direction::Up => vec![0xa5; 64 << 10],
    };
    while !stop.load(Relaxed) {
        let result = match direction {
            Direction::Down => stream.read(&mut buffer),
            Direction::Up => stream.write(&buffer),
        };
        match result {
            Ok(0) => break,
            Ok(count) => _ = moved.fetch_add(count as u64, Relaxed),
            Err(error) if is_timeout(&error) => {}
            Err(_) => break,
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::fairness;

    #[test]
    fn equal_shares_are_fair() {
        assert_eq!(
            [&[2.0, 2.0, 2.0][..], &[0.0, 5.0], &[3.0, 1.0], &[0.0]].map(fairness),
            [Some(1.0), Some(0.5), Some(0.8), None]
        );
    }
}
