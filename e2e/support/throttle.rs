//! A line that carries so many bytes a second each way.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::net;

/// Small, so that a line's capacity is shared evenly.
const BLOCK: usize = 16 * 1024;

/// How far a line may be behind before what it did not carry is lost: several ticks of the clock that wakes it.
const SLACK: Duration = Duration::from_millis(10);

/// Stands before an address.
pub(crate) struct Throttle {
    pub(crate) address: SocketAddr,
    lines: [Arc<Line>; 2],
}

struct Line {
    nanos_per_byte: f64,
    free_at: Mutex<Instant>,
    carried: AtomicU64,
}

impl Throttle {
    pub(crate) fn before(to: SocketAddr, bytes_per_second: u32) -> Self {
        let line = || {
            Arc::new(Line {
                nanos_per_byte: 1e9 / f64::from(bytes_per_second),
                free_at: Mutex::new(Instant::now()),
                carried: AtomicU64::new(0),
            })
        };
        let lines = [line(), line()];
        let both = lines.clone();
        let address = net::serve(move |near| {
            let [up, down] = both.clone();
            async move {
                let far = TcpStream::connect(to).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::try_join!(up.carry(near_read, far_write), down.carry(far_read, near_write)).map(drop)
            }
        });
        Self { address, lines }
    }

    /// Bytes carried there and back.
    pub(crate) fn carried(&self) -> [u64; 2] {
        [0, 1].map(|at: usize| self.lines[at].carried.load(Ordering::Relaxed))
    }
}

impl Line {
    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        loop {
            let n = from.read(&mut block).await?;
            if n == 0 {
                return to.shutdown().await;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "less than a second")]
            let takes = Duration::from_nanos((self.nanos_per_byte * n as f64) as u64);
            let done = {
                let mut free_at = self.free_at.lock().await;
                let earliest = Instant::now().checked_sub(SLACK).unwrap_or(*free_at);
                *free_at = (*free_at).max(earliest) + takes;
                *free_at
            };
            sleep_until(done).await;
            to.write_all(&block[..n]).await?;
            self.carried.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}
