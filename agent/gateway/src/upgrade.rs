//! A connection that became something else: exec, attach and port-forward over WebSocket or SPDY.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use mykube_dial::drain_until;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split},
    sync::Notify,
};

use crate::{
    connector::Io,
    endings::{outlive, pass_on},
    exchange::Exchange,
    record::{
        Recording, UNWRITABLE,
        tee::{Ended, copy_and_record},
    },
    retarget::Retarget,
};

/// Bytes of one copy, each way.
const BUFFER: usize = 64 * 1024;
/// The two sides of a connection that is about to become something else.
pub(crate) struct Upgrading {
    pub(crate) client: OnUpgrade,
    pub(crate) upstream: OnUpgrade,
    pub(crate) exchange: Exchange,
    pub(crate) recording: Option<Recording>,
}

impl Upgrading {
    /// Copies both ways, each direction with its own end. If one side fails, the other fails too, after all bytes that
    /// came before. The exchange still counts as complete if one side had closed in order, as kubectl does without
    /// waiting for the pod's last message.
    pub(crate) async fn run(self) {
        let Self { client, upstream, mut exchange, recording } = self;
        let Ok((client, upstream)) = tokio::try_join!(client, upstream) else { return };
        let mut client = Counted { inner: TokioIo::new(client), read: &exchange.uploaded.bytes, done: false };
        let mut upstream = Counted { inner: TokioIo::new(upstream), read: &exchange.bytes_out, done: false };
        let ended = match recording {
            Some(recording) => copy_and_record(&mut client, &mut upstream, recording).await,
            None => match copy(&mut client, &mut upstream).await {
                Ok(_) => Ended::Over,
                Err(_) => Ended::Broken,
            },
        };
        let done = client.done || upstream.done;
        let cut = !client.done && matches!(ended, Ended::Broken);
        let upstream = upstream.inner.into_inner();
        drop(client.inner);
        if let Some(io) = connection(upstream).filter(|_| cut) {
            io.cut().await;
        }
        match ended {
            Ended::Unrecorded(why) => {
                tracing::error!(why, "a recording cannot be written any more: its session was ended");
                exchange.failed(UNWRITABLE);
            }
            Ended::Broken if !done => {}
            Ended::Broken | Ended::Over => exchange.complete(),
        }
    }
}

/// The connection of the pool, or the one made for this request, beneath hyper's.
fn connection(upstream: Upgraded) -> Option<Io> {
    match upstream.downcast::<Io>() {
        Ok(pooled) => Some(pooled.io),
        Err(upstream) => upstream.downcast::<Retarget<Io>>().ok().map(|own| own.io.into_inner()),
    }
}

/// Copies both ways. Where one side reads no more, the other side's bytes are thrown away; what it had sent itself
/// still goes to the other side, to its end.
async fn copy<C, U>(client: &mut C, upstream: &mut U) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = split(client);
    let (mut from_upstream, mut to_upstream) = split(upstream);
    let (down_over, up_over) = (Notify::new(), Notify::new());
    let down = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = from_upstream.read(&mut buffer).await?;
            if read == 0 {
                to_client.shutdown().await?;
                down_over.notify_one();
                return Ok(());
            }
            if let Err(error) = pass_on(&mut to_client, &buffer[..read]).await {
                outlive(&mut from_upstream, &up_over).await;
                return Err(error);
            }
        }
    };
    let up = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                // The other side may be closed already.
                let _ = to_upstream.shutdown().await;
                up_over.notify_one();
                return Ok(());
            }
            if pass_on(&mut to_upstream, &buffer[..read]).await.is_err() {
                drain_until(&mut from_client, down_over.notified()).await;
                up_over.notify_one();
                return Ok(());
            }
        }
    };
    tokio::try_join!(up, down).map(|((), ())| ())
}

/// Counts the bytes read, and notes the end.
struct Counted<'a, S> {
    inner: S,
    read: &'a AtomicU64,
    done: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        self.done |= read == 0 && matches!(polled, Poll::Ready(Ok(())));
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
