//! Traffic through a tunnel, measured. The target and the clients are in one process, so that one clock and one set of
//! counters see both ends of each byte; what the tunnel's processes use is read from `/proc`.
//!
//! Blocking sockets and threads: a wake-up less than an async runtime on the way of each echo.

mod bulk;
mod echo;
mod integrity;
mod stall;
mod target;

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

pub use bulk::{BulkFigures, Direction};
pub use echo::{ConnectionFigures, Latency, LoadedFigures};
pub use integrity::IntegrityFigures;
pub use stall::{StallFigures, StallPart};
pub use target::{Service, Target};

use crate::{
    process_stats::{ProcessStats, Watched},
    socket::tune_load,
};

/// How long a connection may take to open.
const OPEN: Duration = Duration::from_secs(10);

/// Where load goes, and whose resources count.
#[derive(Debug, Clone)]
pub struct Load {
    /// The tunnel's entry.
    via: SocketAddr,
    /// What is behind the tunnel.
    target: Arc<target::Counters>,
    watched: Vec<Watched>,
    /// How long to wait for a reply before the tunnel counts as hung.
    patience: Duration,
}

impl Load {
    /// Connects to `via` and expects `target` behind it. The calling thread's namespace is where it connects from.
    #[must_use]
    pub fn new(via: SocketAddr, target: &Target, watched: Vec<Watched>, patience: Duration) -> Self {
        Self { via, target: target.counters(), watched, patience }
    }

    /// Waits until a byte goes there and back; returns how long that took.
    pub fn wait_ready(&self, limit: Duration) -> io::Result<Duration> {
        let start = Instant::now();
        loop {
            match self.one_byte() {
                Ok(()) => return Ok(start.elapsed()),
                Err(error) if start.elapsed() > limit => {
                    return Err(io::Error::new(error.kind(), format!("nothing answers at {}: {error}", self.via)));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// What the processes use now.
    #[must_use]
    pub fn process_stats(&self) -> ProcessStats {
        ProcessStats::take(&self.watched)
    }

    /// Resident memory of each name now, in MiB.
    #[must_use]
    pub fn memory(&self) -> Figures {
        mebibytes(&self.process_stats(), |it| it.rss_bytes)
    }

    /// A new connection, one byte there and back.
    fn one_byte(&self) -> io::Result<()> {
        let mut stream = self.open(Service::Echo)?;
        exchange(&mut stream, b"!", &mut [0])
    }

    fn open(&self, service: Service) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.via, OPEN)?;
        tune_load(&stream)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        stream.write_all(&[service.byte()])?;
        Ok(stream)
    }

    /// Resets the peak of memory of each process.
    fn forget_peaks(&self) {
        for one in &self.watched {
            ProcessStats::forget_peak(one);
        }
    }
}

fn exchange(stream: &mut TcpStream, message: &[u8], reply: &mut [u8]) -> io::Result<()> {
    stream.write_all(message)?;
    stream.read_exact(reply)?;
    if message == reply { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "the echo differs")) }
}

/// A figure for each name of a process.
pub type Figures = BTreeMap<String, f64>;

const MIB: f64 = 1_048_576.0;

fn mebibytes(stats: &ProcessStats, of: impl Fn(&crate::process_stats::Use) -> u64) -> Figures {
    stats.by_name.iter().map(|(name, it)| (name.clone(), of(it) as f64 / MIB)).collect()
}
