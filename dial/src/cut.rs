//! Ending a connection so that the other end sees that it was cut, and has received everything that was written before.
//!
//! TLS can say that it was cut: it stops in the middle of a record, without close_notify. (Some programs, among them those with
//! Go's `crypto/tls`, take a stop between two records for an orderly end.) Plain TCP can only be reset, and a reset throws away
//! data that has not arrived, so it waits until the other end's system has acknowledged everything.

use std::{io, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::transport::Transport;

/// Nobody waits longer than this for another end that takes nothing. The system itself goes on at least as long with a closed
/// connection whose other end reads nothing.
pub const STALLED: Duration = Duration::from_secs(10);
/// How long to wait where the system does not tell what has arrived. A segment that the network loses three times in a row
/// arrives within it (200, 400 and 800 ms: RFC 6298 with Linux's least timeout).
const UNKNOWN: Duration = Duration::from_secs(2);
/// How often the system is asked what has arrived.
const LOOK: Duration = Duration::from_millis(5);
/// The head of a record of application data (RFC 8446, section 5.1) without its length.
const HALF_A_HEAD: [u8; 3] = [23, 3, 3];

/// A connection that can be ended without looking complete.
pub trait Abort: Send {
    /// Whether its protocol can tell a cut from an orderly end, as TLS can. TCP alone needs a reset.
    const TELLS: bool;

    /// The TCP connection at the bottom.
    fn tcp(&self) -> &TcpStream;

    /// Writes what it still holds for the other end and then, where its protocol can, that the connection is cut.
    fn say_cut(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes the coming close a reset instead of an orderly end, also where this process is killed.
    fn abort(&self) {
        // Fails only on a connection that is gone already.
        let _ = SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Makes the coming close orderly again.
    fn settle(&self) {
        let _ = SockRef::from(self.tcp()).set_linger(None);
    }
}

impl Abort for TcpStream {
    const TELLS: bool = false;

    fn tcp(&self) -> &TcpStream {
        self
    }

    async fn say_cut(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Any TLS in it is TLS to a proxy, and ends with the connection through that proxy.
impl Abort for Transport {
    const TELLS: bool = false;

    fn tcp(&self) -> &TcpStream {
        Self::tcp(self)
    }

    async fn say_cut(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Abort + AsyncRead + AsyncWrite + Unpin> Abort for tokio_rustls::server::TlsStream<T> {
    const TELLS: bool = true;

    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.tcp()
    }

    async fn say_cut(&mut self) -> io::Result<()> {
        self.flush().await?;
        half_a_record(self.get_mut().0).await
    }
}

impl<T: Abort + AsyncRead + AsyncWrite + Unpin> Abort for tokio_rustls::client::TlsStream<T> {
    const TELLS: bool = true;

    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.tcp()
    }

    async fn say_cut(&mut self) -> io::Result<()> {
        self.flush().await?;
        half_a_record(self.get_mut().0).await
    }
}

/// Writes an unfinished record to the TCP connection below a TLS that has been flushed.
async fn half_a_record(below: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    below.write_all(&HALF_A_HEAD).await?;
    below.shutdown().await
}

/// Ends a connection so that its other end receives everything and sees that it was cut. Data that arrives meanwhile is read
/// and dropped, because the system resets a connection that is closed with unread data.
pub async fn cut<T: Abort>(mut connection: T) {
    connection.abort();
    if matches!(timeout(STALLED, connection.say_cut()).await, Ok(Ok(()))) && T::TELLS {
        connection.settle();
    }
    let tcp = connection.tcp();
    tokio::select! {
        () = delivered(tcp) => {}
        // The other end has finished sending, or is gone; it may still have to take what was written.
        () = forget(tcp) => delivered(tcp).await,
    }
}

/// Waits until the other end's system has all that was written; gives up when it has taken nothing for [`STALLED`].
async fn delivered(tcp: &TcpStream) {
    let (mut before, mut since) = (None, Instant::now());
    loop {
        let waits = unacknowledged(tcp);
        if waits == Some(0) {
            return;
        }
        if waits != before {
            (before, since) = (waits, Instant::now());
        }
        if since.elapsed() >= if waits.is_some() { STALLED } else { UNKNOWN } {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Reads and drops until the other end has closed too.
async fn forget(tcp: &TcpStream) {
    let mut dropped = [0; 8192];
    while tcp.readable().await.is_ok() {
        match tcp.try_read(&mut dropped) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Memory that written and unacknowledged data takes, a FIN included. `None` where the system does not tell.
#[cfg(target_os = "linux")]
fn unacknowledged(tcp: &TcpStream) -> Option<u32> {
    use nix::{
        libc,
        sys::socket::{getsockopt, sockopt::GetStruct},
    };

    /// `SO_MEMINFO` (socket(7)'s kernel header): nine counters, the sixth of which is `SK_MEMINFO_WMEM_QUEUED`.
    #[derive(Clone, Copy, Debug)]
    struct MemInfo;
    nix::getsockopt_impl!(MemInfo, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9], GetStruct<[u32; 9]>);

    getsockopt(tcp, MemInfo).ok().map(|counters| counters[5])
}

#[cfg(not(target_os = "linux"))]
fn unacknowledged(_: &TcpStream) -> Option<u32> {
    None
}
