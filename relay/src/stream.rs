//! A connection, plain or TLS, and its two halves.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Handle,
};
use tokio_rustls::server::TlsStream;

/// The system probes an idle connection after this time, and ends it when the other side answers none of the probes. It does
/// not end a connection whose other side reads nothing, which may be busy or stopped: so there is no `TCP_USER_TIMEOUT`, which
/// would.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// Unsent bytes in the kernel: more would only delay the bytes behind them.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOTSENT_LOWAT: u32 = 128 * 1024;

/// A connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The receiving half.
pub(crate) enum ReadHalf {
    Plain(OwnedReadHalf),
    Tls(tokio::io::ReadHalf<Box<TlsStream<TcpStream>>>),
}

/// The sending half.
pub(crate) enum WriteHalf {
    Plain(OwnedWriteHalf),
    Tls(tokio::io::WriteHalf<Box<TlsStream<TcpStream>>>),
}

/// Sets no delay, a short unsent queue, and probes that notice a dead peer.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        unpaced(stream);
    }
    Ok(())
}

/// A connection within this machine is not paced: see docs/decisions/0012. `mykube-dial` has the same for the ends; the relay
/// shares no code that does I/O with it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn unpaced(stream: &TcpStream) {
    let address = |it: io::Result<SocketAddr>| it.ok().map(|it| it.ip().to_canonical());
    let (local, peer) = (address(stream.local_addr()), address(stream.peer_addr()));
    if peer.is_some_and(|peer| peer.is_loopback() || local == Some(peer)) {
        let _ = SockRef::from(stream).set_tcp_congestion(b"reno");
    }
}

impl Stream {
    /// Moves the socket to another runtime's event loop, and waits until it is registered there: the first write would wait for
    /// that, and look as if the other side did not read.
    ///
    /// # Errors
    /// There is no descriptor left, or the connection is gone.
    pub(crate) async fn move_to(&mut self, runtime: &Handle) -> io::Result<()> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_mut().0,
        };
        *tcp = {
            let _in = runtime.enter();
            TcpStream::from_std(SockRef::from(&*tcp).try_clone()?.into())?
        };
        tcp.writable().await
    }

    pub(crate) fn into_halves(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Tls(stream) => {
                let (read, write) = tokio::io::split(stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
        }
    }
}

macro_rules! either {
    ($self:ident, $half:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($half) => {
                let $half = Pin::new($half);
                $call
            }
            Self::Tls($half) => {
                let $half = Pin::new($half);
                $call
            }
        }
    };
}

macro_rules! impl_read {
    ($type:ty) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                either!(self, half => half.poll_read(cx, buf))
            }
        }
    };
}

macro_rules! impl_write {
    ($type:ty) => {
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                either!(self, half => half.poll_write(cx, buf))
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self, half => half.poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!(self, half => half.poll_shutdown(cx))
            }
        }
    };
}

impl_read!(Stream);
impl_write!(Stream);
impl_read!(ReadHalf);
impl_write!(WriteHalf);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_not_given_up_and_one_on_this_machine_is_not_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap(), "one that is gone is noticed");
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            assert_eq!(socket.tcp_user_timeout().unwrap(), None);
            assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"));
        }
    }
}
