//! One stream of a channel, for tasks.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use mykube_protocol::{Role, channel::StreamId};
use mykube_tunnel::session::ReadState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::shared::{Shared, ready};

/// A stream failed; the reason is the peer's or the channel's, cleaned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StreamFailed(pub String);

/// A stream. Dropped without both directions ended, it fails at the peer.
pub struct ChannelStream {
    shared: Arc<Shared>,
    id: StreamId,
    released: AtomicBool,
    /// What an `AsyncRead` has taken from the session and not yet handed out.
    pending: Vec<Bytes>,
}

impl ChannelStream {
    pub(crate) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self { shared, id, released: AtomicBool::new(false), pending: Vec::new() }
    }

    /// Received chunks, about `max` bytes of them, appended to `chunks`. `false` at the peer's end of the stream. The next
    /// call says that they are consumed, and the peer may send as much again.
    ///
    /// # Errors
    /// The stream failed. Without the peer's word there is no clean end.
    pub async fn read(&self, max: u64, chunks: &mut Vec<Bytes>) -> Result<bool, StreamFailed> {
        let before = chunks.len();
        let state = ready(|cx| self.shared.poll_read(cx, self.id, max, chunks)).await;
        match state {
            _ if chunks.len() > before => Ok(true),
            ReadState::Open => Ok(true),
            ReadState::Eof => Ok(false),
            ReadState::Failed(reason) => Err(StreamFailed(reason)),
        }
    }

    /// Sends all of `payload`; waits while the stream has enough to send.
    ///
    /// # Errors
    /// The stream failed.
    pub async fn write(&self, mut payload: Bytes) -> Result<(), StreamFailed> {
        ready(|cx| self.shared.poll_write(cx, self.id, &mut payload)).await.map_err(StreamFailed)
    }

    /// Waits until the stream takes more to send.
    ///
    /// # Errors
    /// The stream failed.
    pub async fn room(&self) -> Result<(), StreamFailed> {
        self.write(Bytes::new()).await
    }

    /// At the agent, why the client has failed the stream before its own direction was whole, if it did; also while bytes are
    /// unread.
    pub(crate) fn is_left(&self) -> Option<StreamFailed> {
        let state = self.shared.lock();
        let session = state.endpoint.session();
        session.failure(self.id).filter(|_| session.role() == Role::Agent).map(|reason| StreamFailed(reason.to_owned()))
    }

    /// Bytes that this stream may have waiting, beside the others that are open.
    pub(crate) fn share(&self) -> usize {
        self.shared.lock().endpoint.session().share()
    }

    /// No more bytes this way.
    pub fn finish(&self) {
        self.shared.with(|session, now| session.finish(now, self.id));
    }

    /// The stream fails, and the peer hears why.
    pub fn fail(&self, reason: &str) {
        self.release(Some(reason));
    }

    fn release(&self, reason: Option<&str>) {
        if !self.released.swap(true, Ordering::AcqRel) {
            self.shared.with(|session, now| session.release(now, self.id, reason));
        }
    }
}

impl Drop for ChannelStream {
    fn drop(&mut self) {
        self.release(None);
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A reader without room waits for nothing.
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.pending.is_empty() {
            let room = buf.remaining() as u64;
            match this.shared.poll_read(cx, this.id, room, &mut this.pending) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ReadState::Failed(reason)) if this.pending.is_empty() => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, StreamFailed(reason))));
                }
                Poll::Ready(_) => this.pending.reverse(),
            }
        }
        while buf.remaining() > 0
            && let Some(chunk) = this.pending.last_mut()
        {
            let len = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..len]);
            chunk.advance(len);
            if chunk.is_empty() {
                this.pending.pop();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// Several records of TLS at once: each turn of a stream costs the same.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        const MOST: usize = 64 * 1024;
        let most = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(MOST);
        let mut payload = BytesMut::with_capacity(most);
        for buf in bufs {
            payload.extend_from_slice(&buf[..buf.len().min(most - payload.len())]);
        }
        let broken = |reason| io::Error::new(io::ErrorKind::BrokenPipe, StreamFailed(reason));
        let polled = self.shared.poll_write(cx, self.id, &mut payload.freeze());
        polled.map(|done| done.map(|()| most).map_err(broken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}
