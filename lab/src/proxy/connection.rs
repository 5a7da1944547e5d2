//! One connection through a forwarder.

use std::{
    io,
    net::Shutdown,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::options::{Counters, Cut, ForwardOptions, ForwardTarget, Orders};
use crate::socket::tune;

/// Longest head of a request.
const HEAD: usize = 8 * 1024;
/// With a rate, a direction sends what it may in this time, then waits.
const SLICE: Duration = Duration::from_millis(10);

/// Forwards until both sides have ended, or it is cut.
pub(super) async fn serve(
    mut near: TcpStream,
    options: Arc<ForwardOptions>,
    orders: watch::Receiver<Orders>,
    generation: u64,
    counters: Arc<Counters>,
) {
    let moved = LastMove::now();
    let mut end = pin!(end(&options, orders.clone(), generation, &moved));
    let far = tokio::select! {
        far = reach(&mut near, &options.target) => far.map(Some),
        () = &mut end => Ok(None),
    };
    let was_cut = match far {
        // The target refused, or the request could not be parsed: the close tells the client.
        Err(_) => false,
        Ok(None) => true,
        Ok(Some(mut far)) => {
            let was_cut = tokio::select! {
                _ = join(&mut near, &mut far, &options, &orders, &moved, &counters.bytes) => false,
                () = &mut end => true,
            };
            if was_cut {
                let _ = cut(&far, options.cut);
            }
            was_cut
        }
    };
    if was_cut {
        let _ = cut(&near, options.cut);
        counters.cut.fetch_add(1, Ordering::SeqCst);
    }
}

/// Decides what the other side of this socket sees when it is dropped.
pub(super) fn cut(connection: &TcpStream, how: Cut) -> io::Result<()> {
    match how {
        Cut::Close => SockRef::from(connection).shutdown(Shutdown::Write),
        Cut::Reset => SockRef::from(connection).set_linger(Some(Duration::ZERO)),
    }
}

/// Connects to the target, after a request if that names it.
async fn reach(near: &mut TcpStream, target: &ForwardTarget) -> io::Result<TcpStream> {
    let far = match target {
        ForwardTarget::To(address) => TcpStream::connect(address).await?,
        ForwardTarget::Connect(routes) => {
            let head = read_head(near).await?;
            let Some(name) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
                near.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: CONNECT\r\nContent-Length: 0\r\n\r\n")
                    .await?;
                return Err(io::ErrorKind::Unsupported.into());
            };
            let far = match routes.get(name) {
                Some(address) => TcpStream::connect(*address).await,
                None => TcpStream::connect(name).await,
            };
            match far {
                Ok(far) => {
                    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                    far
                }
                Err(error) => {
                    near.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await?;
                    return Err(error);
                }
            }
        }
    };
    tune(&*near)?;
    tune(&far)?;
    Ok(far)
}

/// Everything up to the empty line.
async fn read_head(from: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(from.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn join(
    near: &mut TcpStream,
    far: &mut TcpStream,
    options: &ForwardOptions,
    orders: &watch::Receiver<Orders>,
    moved: &LastMove,
    bytes: &AtomicU64,
) -> io::Result<()> {
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let there = copy(near_read, far_write, options, orders.clone(), moved, bytes);
    let back = copy(far_read, near_write, options, orders.clone(), moved, bytes);
    tokio::try_join!(there, back).map(drop)
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    options: &ForwardOptions,
    mut orders: watch::Receiver<Orders>,
    moved: &LastMove,
    bytes: &AtomicU64,
) -> io::Result<()> {
    let slice = options
        .rate
        .map_or(options.buffer, |rate| usize::try_from(rate / 100).unwrap_or(usize::MAX).clamp(1, options.buffer));
    let mut buffer = vec![0; slice.max(1)];
    let mut next = Instant::now();
    loop {
        let count = from.read(&mut buffer).await?;
        // Paused while this was read: it waits here.
        if orders.wait_for(|orders| !orders.paused).await.is_err() {
            return Ok(());
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        moved.set_now();
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(rate) = options.rate {
            let share = SLICE.mul_f64(count as f64 / (rate as f64 / 100.0));
            next = next.max(Instant::now() - SLICE) + share;
            sleep_until(next).await;
        }
    }
}

/// Returns when the connection is to be cut.
async fn end(options: &ForwardOptions, mut orders: watch::Receiver<Orders>, generation: u64, moved: &LastMove) {
    let life = async {
        match options.life {
            Some(life) => sleep(life).await,
            None => std::future::pending().await,
        }
    };
    let idle = async {
        let Some(idle) = options.idle else { return std::future::pending().await };
        loop {
            let until = moved.get() + idle;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    };
    tokio::select! {
        () = life => {}
        () = idle => {}
        // An error means that the forwarder has gone.
        _ = orders.wait_for(|orders| orders.stop || orders.generation != generation) => {}
    }
}

/// When a connection last moved a byte.
struct LastMove(Mutex<Instant>);

impl LastMove {
    fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn set_now(&self) {
        *self.lock() = Instant::now();
    }

    fn get(&self) -> Instant {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
