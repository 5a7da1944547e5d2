//! Keeps kubectl alive while the far end is away: this client answers its WebSocket pings then.
//!
//! kubectl pings every 5 s on the WebSocket of an `exec`, `attach` or `cp` and gives up 61 s after the last pong. In
//! guarded mode the bytes are in the clear between the loopback port's TLS and the stream, so frame headers can be
//! followed. While the channel is away a ping is answered and does not go into the stream; the newest ping that was
//! on its way when the channel went away is answered too, and a late second pong does no harm. The payloads of other
//! frames are counted and not read.
//!
//! A WebSocket is recognised only in the first request of a connection, where the head begins with the first byte, so
//! that no body can pass for a head: every WebSocket client dials a connection of its own (kubectl's is gorilla's
//! `Dialer`). Any other connection passes untouched from its first head on.
//!
//! kubectl has no timer for `exec` over SPDY (its pings wait for ever) nor for `port-forward` in either form, so these
//! pass untouched. A pong does not help where kubectl gives up a WebSocket that it could not write to for 60 s.

mod head;
mod machine;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use mykube_dial::Abort;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};

pub use machine::FRAME_MAX;
use machine::Keepalive;

/// Most bytes taken from the writer at once.
const WRITE_MAX: usize = 256 * 1024;

/// kubectl's side of a connection whose other side is a stream. One task must have both halves, as in
/// [`mykube_link::copy()`]: reading also writes.
pub struct KeepaliveConnection<T, S> {
    connection: T,
    /// `None` once there is nothing to watch.
    watched: Option<Box<Watched<S>>>,
}

struct Watched<S> {
    machine: Keepalive,
    away: Away<S>,
    /// Bytes for the stream that it has not read yet.
    outward: BytesMut,
    /// Bytes for kubectl that are not written yet.
    inward: BytesMut,
    /// `inward` has pongs of ours, or one was written and not flushed.
    own: bool,
    /// kubectl sends no more ...
    ended: bool,
    /// ... or was cut.
    failed: Option<io::Error>,
    /// A pong could not be written.
    unsaid: Option<io::Error>,
}

impl<T, S: Send + Sync + 'static> KeepaliveConnection<T, S> {
    /// Watches `connection` from its first byte; `is_away` reads the channel's status.
    pub fn new(connection: T, status: watch::Receiver<S>, is_away: fn(&S) -> bool) -> Self {
        let watched = Watched {
            machine: Keepalive::new(),
            away: Away::new(status, is_away),
            outward: BytesMut::new(),
            inward: BytesMut::new(),
            own: false,
            ended: false,
            failed: None,
            unsaid: None,
        };
        Self { connection, watched: Some(Box::new(watched)) }
    }
}

impl<T, S> Abort for KeepaliveConnection<T, S>
where
    T: Abort + AsyncRead + AsyncWrite + Unpin,
    S: Send + Sync + 'static,
{
    const TELLS: bool = T::TELLS;

    fn tcp(&self) -> &TcpStream {
        self.connection.tcp()
    }

    async fn say_cut(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self).poll_rest(cx)).await?;
        self.connection.say_cut().await
    }
}

impl<S: Send + Sync + 'static> Watched<S> {
    /// Whether everything has been passed on and nothing more will be held.
    fn is_over(&self) -> bool {
        self.machine.is_plain() && self.outward.is_empty() && self.inward.is_empty() && !self.own
    }

    /// Writes the bytes for kubectl.
    fn poll_drain<T: AsyncWrite + Unpin>(&mut self, connection: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.inward.is_empty() {
            let written = ready!(Pin::new(&mut *connection).poll_write(cx, &self.inward))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.inward.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes our pongs. Pending only means that the rest is written later.
    fn poll_own<T: AsyncWrite + Unpin>(&mut self, connection: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.own |= self.machine.poll_own(&mut self.inward);
        if self.own {
            ready!(self.poll_drain(connection, cx))?;
            ready!(Pin::new(connection).poll_flush(cx))?;
            self.own = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_away(&mut self, cx: &mut Context<'_>) {
        if self.machine.is_websocket() && self.away.poll_turned(cx) && self.away.now {
            self.machine.handle_away();
        }
    }

    fn poll_read<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        connection: &mut T,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.poll_away(cx);
            // The bytes that kubectl sent before it went away come first.
            if self.unsaid.is_none()
                && let Poll::Ready(Err(error)) = self.poll_own(connection, cx)
            {
                self.unsaid = Some(error);
            }
            if !self.outward.is_empty() {
                let len = self.outward.len().min(buf.remaining());
                buf.put_slice(&self.outward.split_to(len));
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = self.failed.take() {
                return Poll::Ready(Err(error));
            }
            let before = buf.filled().len();
            let polled = ready!(Pin::new(&mut *connection).poll_read(cx, buf));
            let read = &buf.filled()[before..];
            if read.is_empty() {
                // A cut may have left a part of a frame: the stream gets it before it fails.
                self.failed = polled.err().or(self.unsaid.take());
                self.ended = self.failed.is_none();
                self.machine.finish_outward(&mut self.outward);
            } else {
                self.machine.handle_outward(read, self.away.now, &mut self.outward);
            }
            buf.set_filled(before);
        }
    }

    fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        connection: &mut T,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(connection, cx))?;
        let mut taken = 0;
        for slice in slices {
            let part = &slice[..slice.len().min(WRITE_MAX - taken)];
            self.machine.handle_inward(part, &mut self.inward);
            taken += part.len();
        }
        self.own |= self.machine.poll_own(&mut self.inward);
        // The rest is written before more is taken, or with the flush.
        if let Poll::Ready(Err(error)) = self.poll_drain(connection, cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }
}

impl<T, S> KeepaliveConnection<T, S>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Send + Sync + 'static,
{
    /// The connection, and its watcher unless that is done.
    fn parts(self: Pin<&mut Self>) -> (&mut T, Option<&mut Watched<S>>) {
        let this = self.get_mut();
        if this.watched.as_ref().is_some_and(|watched| watched.is_over()) {
            this.watched = None;
        }
        (&mut this.connection, this.watched.as_deref_mut())
    }

    /// The server sends no more: writes all that was held back.
    fn poll_rest(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (connection, watched) = self.parts();
        if let Some(watched) = watched {
            watched.machine.finish_inward(&mut watched.inward);
            ready!(watched.poll_drain(connection, cx))?;
            watched.own = false;
        }
        Pin::new(connection).poll_flush(cx)
    }
}

impl<T, S> AsyncRead for KeepaliveConnection<T, S>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Send + Sync + 'static,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.parts() {
            (connection, None) => Pin::new(connection).poll_read(cx, buf),
            (connection, Some(watched)) => watched.poll_read(connection, cx, buf),
        }
    }
}

impl<T, S> AsyncWrite for KeepaliveConnection<T, S>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Send + Sync + 'static,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.parts() {
            (connection, None) => Pin::new(connection).poll_write(cx, buf),
            (connection, Some(watched)) => watched.poll_write(connection, cx, &[IoSlice::new(buf)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.parts() {
            (connection, None) => Pin::new(connection).poll_write_vectored(cx, slices),
            (connection, Some(watched)) => watched.poll_write(connection, cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (connection, watched) = self.parts();
        if let Some(watched) = watched {
            ready!(watched.poll_drain(connection, cx))?;
            ready!(Pin::new(connection).poll_flush(cx))?;
            watched.own = false;
            return Poll::Ready(Ok(()));
        }
        Pin::new(connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_rest(cx))?;
        Pin::new(&mut self.get_mut().connection).poll_shutdown(cx)
    }
}

/// Whether the channel is away, as of the last look.
struct Away<S> {
    now: bool,
    is_away: fn(&S) -> bool,
    /// Its next change; `None` if there will be none.
    next: Option<Next<S>>,
}

type Next<S> = Pin<Box<dyn Future<Output = Option<watch::Receiver<S>>> + Send>>;

impl<S: Send + Sync + 'static> Away<S> {
    fn new(mut status: watch::Receiver<S>, is_away: fn(&S) -> bool) -> Self {
        let now = is_away(&status.borrow_and_update());
        Self { now, is_away, next: Some(next(status)) }
    }

    /// Whether it changed since the last look.
    fn poll_turned(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.now;
        while let Some(waiting) = &mut self.next {
            match waiting.as_mut().poll(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.next = None,
                Poll::Ready(Some(mut status)) => {
                    self.now = (self.is_away)(&status.borrow_and_update());
                    self.next = Some(next(status));
                }
            }
        }
        before != self.now
    }
}

fn next<S: Send + Sync + 'static>(mut status: watch::Receiver<S>) -> Next<S> {
    Box::pin(async move { status.changed().await.is_ok().then_some(status) })
}
