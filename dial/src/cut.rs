//! Ends of connections that are no orderly ends, and destroy nothing: what was written arrives first.
//!
//! TLS can say that it was cut: it stops in the middle of a record, without close_notify. (Between two records some take that
//! for an end, Go's `crypto/tls` among them.) Plain TCP can only be reset, and a reset throws away what has not arrived: it
//! waits until the other end's system has acknowledged everything.

use std::{io, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::transport::Transport;

/// Whoever has taken nothing for so long is not waited for: as long as the system itself goes on with a connection that was
/// closed and whose other end reads nothing, or shorter.
pub const STALLED: Duration = Duration::from_secs(10);
/// Where the system does not tell what has arrived: a segment that the network loses three times in a row (200, 400 and 800 ms,
/// RFC 6298 with Linux's least timeout) is there by then.
const UNKNOWN: Duration = Duration::from_secs(2);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(5);
/// The head of a record of application data (RFC 8446, section 5.1) without its length.
const HALF_A_HEAD: [u8; 3] = [23, 3, 3];

/// A connection that can be ended without looking complete.
pub trait Abort: Send {
    /// Whether what it speaks tells an end from a cut, as TLS does. On TCP only a reset tells.
    const TELLS: bool;

    /// The TCP connection at the bottom.
    fn tcp(&self) -> &TcpStream;

    /// Writes what it still holds for its other end, and then, where it can, that this is no orderly end.
    fn say_cut(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes the coming close a reset instead of an orderly end, also where this process is killed.
    fn abort(&self) {
        // Fails only on a connection that is gone already.
        let _ = SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Makes it orderly again.
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

/// TLS to a proxy ends with what it carries.
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

/// Below a TLS that has been flushed.
async fn half_a_record(below: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    below.write_all(&HALF_A_HEAD).await?;
    below.shutdown().await
}

/// Ends a connection, so that its other end has everything and sees that it was cut. What comes
/// meanwhile is read and forgotten: a connection that is closed with something unread is reset by the system.
pub async fn cut<T: Abort>(mut connection: T) {
    connection.abort();
    if matches!(timeout(STALLED, connection.say_cut()).await, Ok(Ok(()))) && T::TELLS {
        connection.settle();
    }
    let tcp = connection.tcp();
    tokio::select! {
        () = delivered(tcp) => {}
        // Its other end is through, or gone; what it has not read yet is still waited for.
        () = forget(tcp) => delivered(tcp).await,
    }
}

/// Waits until the other end's system has all that was written, as long as it takes some of it now and then.
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

/// Reads until the other end is done too.
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

/// Memory of what was written and is not acknowledged, a FIN included. `None` where the system does not tell.
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
