//! The service behind the tunnel: echo, sink, source and a reader that never reads, on one port.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use crate::{LabError, socket::tune_load};

const STACK: usize = 128 << 10;

/// The service that a connection asks for with its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `e`: sends back what comes, then an end of file.
    Echo,
    /// `u`: counts what comes; after its end says how many bytes it was, in decimal.
    Sink,
    /// `d`: sends without end.
    Source,
    /// `x`: reads nothing.
    Stalled,
}

impl Service {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Echo => b'e',
            Self::Sink => b'u',
            Self::Source => b'd',
            Self::Stalled => b'x',
        }
    }
}

/// The target's counts, of all connections together.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Bytes that reached a sink.
    pub(super) sunk: AtomicU64,
    /// Bytes that sources could write.
    pub(super) sourced: AtomicU64,
    /// Sources and stalled readers of an earlier generation end.
    pub(super) generation: AtomicU64,
    stop: AtomicBool,
}

/// A running target, a thread for each connection. It accepts no more when this is dropped.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    counters: Arc<Counters>,
}

impl Target {
    /// Serves the connections to this socket, which may have been made in a namespace.
    pub fn start(listener: TcpListener) -> Result<Self, LabError> {
        let address = listener.local_addr().map_err(LabError::io("read the address of a socket"))?;
        let counters = Arc::new(Counters::default());
        let its = Arc::clone(&counters);
        listener.set_nonblocking(true).map_err(LabError::io("use a socket without blocking"))?;
        spawn("lab-target", move || accept(&listener, &its)).map_err(LabError::io("start a thread"))?;
        Ok(Self { address, counters })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.counters.stop.store(true, Relaxed);
        self.counters.generation.fetch_add(1, Relaxed);
    }
}

fn accept(listener: &TcpListener, counters: &Arc<Counters>) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !counters.stop.load(Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&tick));
            continue;
        };
        let counters = Arc::clone(counters);
        let _ = spawn("lab-target-one", move || serve(stream, &counters).unwrap_or(()));
    }
}

fn serve(mut stream: TcpStream, counters: &Counters) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    tune_load(&stream)?;
    stream.set_read_timeout(Some(Duration::from_secs(600)))?;
    stream.set_write_timeout(Some(Duration::from_secs(600)))?;
    let mut service = [0];
    stream.read_exact(&mut service)?;
    match service[0] {
        b'e' => echo(stream),
        b'u' => sink(stream, counters),
        b'd' => source(stream, counters),
        b'x' => stalled(counters),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.shutdown(Shutdown::Write),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn sink(mut stream: TcpStream, counters: &Counters) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(format!("{total}\n").as_bytes()),
            count => {
                total += count as u64;
                counters.sunk.fetch_add(count as u64, Relaxed);
            }
        }
    }
}

fn source(mut stream: TcpStream, counters: &Counters) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    let block = vec![0x5a; 64 << 10];
    let generation = counters.generation.load(Relaxed);
    while counters.generation.load(Relaxed) == generation {
        match stream.write(&block) {
            Ok(count) => counters.sourced.fetch_add(count as u64, Relaxed),
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

#[allow(clippy::unnecessary_wraps, reason = "as the other services")]
fn stalled(counters: &Counters) -> io::Result<()> {
    let generation = counters.generation.load(Relaxed);
    while counters.generation.load(Relaxed) == generation {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work)
}
