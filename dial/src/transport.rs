//! The byte stream under a WebSocket or an HTTP call: TCP, TLS, or TLS through an https proxy.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// Unsent bytes the kernel takes before it says "full". Small, so that a keystroke does not wait behind megabytes.
pub const NOTSENT_LOWAT: u32 = 128 * 1024;
/// How long bytes sent to the relay may stay unacknowledged before the connection is given up (Linux).
pub const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// After how long TCP begins to probe an idle connection, and how often it probes.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// The same towards the relay: later than any ping of a session, because under [`USER_TIMEOUT`] a single lost probe ends the
/// connection.
pub const KEEPALIVE_RELAY: Duration = Duration::from_secs(30);

/// A connection to the relay or another target, directly or through a proxy.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS to the target, or to an https proxy that forwards plain bytes.
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS to the target inside TLS to an https proxy.
    TlsInTls(Box<TlsStream<Box<TlsStream<TcpStream>>>>),
}

impl Transport {
    /// The TCP socket at the bottom.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            Self::TlsInTls(tls) => tls.get_ref().0.get_ref().0,
        }
    }
}

/// Sets what an interactive connection needs: no Nagle, a short unsent queue, and probes while it is idle. A connection that
/// stays on this machine is not paced.
///
/// The other end may leave data unread for as long as it likes: behind `kubectl exec -i` a program in the pod may not read for
/// hours, and behind a watch a laptop may sleep.
///
/// # Errors
/// The system's, which on a connected TCP socket means that it is gone.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        unpaced(tcp);
    }
    Ok(())
}

/// Sets what a connection from a program on this machine needs: no Nagle, and no pacing.
///
/// # Errors
/// See [`tune`].
pub fn tune_local(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    unpaced(tcp);
    Ok(())
}

/// Within one machine there is no line whose rate a congestion control could find out: one that paces (BBR) only sets timers
/// there, which cost a tenth of what moving the bytes costs (docs/decisions/0012). Reno sets none, and every Linux has it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn unpaced(tcp: &TcpStream) {
    if is_within_machine(tcp.local_addr().ok(), tcp.peer_addr().ok()) {
        // The system refuses only where an administrator does not allow reno; the connection then keeps its own.
        let _ = SockRef::from(tcp).set_tcp_congestion(b"reno");
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_within_machine(local: Option<SocketAddr>, peer: Option<SocketAddr>) -> bool {
    let (local, peer) = (local.map(|it| it.ip().to_canonical()), peer.map(|it| it.ip().to_canonical()));
    peer.is_some_and(|peer| peer.is_loopback() || local == Some(peer))
}

/// Sets what a connection to the relay needs beside that: an early error when the network is gone. Data that stays
/// unacknowledged ends it, because a relay reads always; where it does not, the session goes on over another connection.
///
/// # Errors
/// See [`tune`].
pub fn tune_for_relay(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_RELAY).with_interval(KEEPALIVE))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Tcp(tcp) => {
                let $stream = Pin::new(tcp);
                $call
            }
            Transport::Tls(tls) => {
                let $stream = Pin::new(tls.as_mut());
                $call
            }
            Transport::TlsInTls(tls) => {
                let $stream = Pin::new(tls.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
            Self::TlsInTls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn within_this_machine_is_loopback_and_an_address_of_its_own() {
        let within = |local: &str, peer: &str| is_within_machine(local.parse().ok(), peer.parse().ok());
        assert!(within("127.0.0.1:1", "127.0.0.1:2") && within("[::1]:1", "[::1]:2"));
        assert!(within("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:2"), "a listener of both families");
        assert!(within("192.0.2.1:1", "192.0.2.1:2"));
        assert!(!within("192.0.2.1:1", "192.0.2.2:2") && !within("[2001:db8::1]:1", "[2001:db8::2]:2"));
        assert!(!is_within_machine(None, None), "one that is gone");
    }
}
