//! What a client's connection says before hyper reads it: when a request's head begins and ends, and which lengths it
//! claims.
//!
//! hyper follows RFC 9112 and drops `Content-Length` beside `Transfer-Encoding`; we refuse such a request, so that
//! nobody in the way could have read it otherwise. A head must be complete within a time from its first byte, while a
//! connection between requests may be idle for ever, as kubectl's are. A request that is sent before the last one was
//! answered is refused: no client of Kubernetes does that, smugglers do.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// What a connection and its requests tell each other.
#[derive(Debug, Default)]
pub(super) struct Progress {
    heads: AtomicU32,
    taken: AtomicU32,
    finished: AtomicU32,
    conflict: AtomicBool,
}

impl Progress {
    /// A request's head was read.
    ///
    /// # Errors
    /// It was not alone, or it claims two lengths.
    pub(super) fn take(&self) -> Result<(), &'static str> {
        let number = self.taken.fetch_add(1, Ordering::AcqRel) + 1;
        if self.heads.load(Ordering::Acquire) != number {
            return Err("was sent before the last one was answered");
        }
        if self.conflict.load(Ordering::Acquire) {
            return Err("has both Content-Length and Transfer-Encoding");
        }
        Ok(())
    }

    /// It was answered: the next head may come.
    pub(super) fn finish(&self) {
        self.finished.fetch_add(1, Ordering::AcqRel);
    }
}

/// A client's connection.
pub(super) struct Intake<S> {
    stream: S,
    progress: Arc<Progress>,
    scan: Scan,
    limit: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Intake<S> {
    pub(super) fn new(stream: S, progress: Arc<Progress>, limit: Duration) -> Self {
        Self { stream, progress, scan: Scan::default(), limit, deadline: None }
    }

    /// Looks at bytes that arrived.
    fn see(&mut self, bytes: &[u8]) {
        let heads = self.progress.heads.load(Ordering::Acquire);
        if self.progress.finished.load(Ordering::Acquire) != heads {
            return;
        }
        for byte in bytes {
            if self.scan.next(*byte) {
                self.progress.conflict.store(self.scan.length && self.scan.encoding, Ordering::Release);
                self.progress.heads.store(heads + 1, Ordering::Release);
                self.scan = Scan::default();
                break;
            }
        }
        if !self.scan.begun {
            self.deadline = None;
        } else if self.deadline.is_none() {
            self.deadline = Some(Box::pin(tokio::time::sleep_until(Instant::now() + self.limit)));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Intake<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                this.see(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let late = this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
                if !late {
                    return Poll::Pending;
                }
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the request's headers did not come")))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Intake<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

/// Where in a head we are.
#[derive(Default)]
struct Scan {
    /// The beginning of the line, in lower case: enough for the two names.
    start: [u8; Scan::START],
    column: usize,
    /// Something but empty lines was seen.
    begun: bool,
    length: bool,
    encoding: bool,
}

impl Scan {
    const START: usize = 18;
    const LENGTH: &[u8] = b"content-length:";
    const ENCODING: &[u8] = b"transfer-encoding:";

    /// Takes a byte; `true` at the end of the head. Line ends are LF, with or without CR, as hyper reads them.
    fn next(&mut self, byte: u8) -> bool {
        match byte {
            b'\n' if self.column == 0 => return self.begun,
            b'\n' => {
                self.length |= self.start.starts_with(Self::LENGTH);
                self.encoding |= self.start.starts_with(Self::ENCODING);
                self.start = [0; Self::START];
                self.column = 0;
            }
            b'\r' => {}
            byte => {
                self.begun = true;
                if let Some(at) = self.start.get_mut(self.column) {
                    *at = byte.to_ascii_lowercase();
                }
                self.column += 1;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn feed(parts: &[&str]) -> (Arc<Progress>, Intake<()>) {
        let progress = Arc::new(Progress::default());
        let mut intake = Intake::new((), progress.clone(), Duration::from_secs(30));
        for part in parts {
            intake.see(part.as_bytes());
        }
        (progress, intake)
    }

    #[tokio::test]
    async fn one_head_at_a_time() {
        let (progress, mut intake) = feed(&["\r\nGET / HT", "TP/1.1\r\nHost: a\r\n\r", "\nbody\r\n\r\n"]);
        assert!(intake.deadline.is_none());
        assert_eq!(progress.take(), Ok(()));
        intake.see(b"GET /b HTTP/1.1\r\n\r\n");
        assert!(progress.take().is_err(), "before the answer");
        let (progress, mut intake) = feed(&["GET / HTTP/1.1\n\n"]);
        assert_eq!(progress.take(), Ok(()));
        progress.finish();
        intake.see(b"GET /b HTTP/1.1\r\n\r\n");
        assert_eq!(progress.take(), Ok(()));
    }

    #[tokio::test]
    async fn two_lengths_conflict_in_any_order() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\nX: y\r\nCONTENT-LENGTH: 3\r\n\r\n",
        ] {
            assert!(feed(&[head]).0.take().is_err(), "{head}");
        }
        assert_eq!(feed(&["POST / HTTP/1.1\r\nContent-Length: 3\r\nX-Transfer-Encoding: a\r\n\r\n"]).0.take(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_stops_is_given_up_and_idleness_is_not() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut intake = Intake::new(far, Arc::new(Progress::default()), Duration::from_secs(30));
        let mut buf = [0; 64];
        let idle = tokio::time::timeout(Duration::from_secs(3600), intake.read(&mut buf)).await;
        assert!(idle.is_err(), "an idle connection stays");
        near.write_all(b"GET / H").await.unwrap();
        assert_eq!(intake.read(&mut buf).await.unwrap(), 7);
        let error = intake.read(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
