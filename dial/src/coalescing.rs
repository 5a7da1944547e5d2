//! Reads that return all that has arrived. TLS returns one record (16 KiB) a read, and each read costs its caller the same,
//! whatever its length.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::cut::Abort;

/// A connection whose reads return all records that have arrived, as far as the buffer holds them. An error is returned after
/// the records before it, also where the connection reports it first: where rustls reads good records and a bad one at once, it
/// reports the bad one before it gives the good ones.
#[derive(Debug)]
pub struct Coalescing<S> {
    inner: S,
    /// A read that has this many bytes takes no further record.
    enough: usize,
    failed: Option<io::Error>,
}

impl<S> Coalescing<S> {
    /// Wraps a connection.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self::until(inner, usize::MAX)
    }

    /// The same, but a read takes no further record once it has `enough` bytes: for a reader that makes its buffer larger
    /// whenever a read has filled it.
    #[must_use]
    pub fn until(inner: S, enough: usize) -> Self {
        Self { inner, enough, failed: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        loop {
            let before = buf.filled().len();
            match Pin::new(&mut self.inner).poll_read(cx, buf) {
                Poll::Ready(Ok(()))
                    if buf.filled().len() > before
                        && buf.filled().len() - start < self.enough
                        && buf.remaining() > 0 =>
                {
                    continue;
                }
                Poll::Ready(Err(error)) if self.failed.is_none() => {
                    self.failed = Some(error);
                    continue;
                }
                Poll::Ready(Ok(())) if buf.filled().len() > before => {}
                // The first error is the one to report, and nothing is read after it.
                _ if before == start && self.failed.is_some() => {
                    return Poll::Ready(self.failed.take().map_or(Ok(()), Err));
                }
                Poll::Ready(Err(_)) | Poll::Pending if before > start => {}
                polled => return polled,
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}

impl<S: Abort> Abort for Coalescing<S> {
    const TELLS: bool = S::TELLS;

    fn tcp(&self) -> &TcpStream {
        self.inner.tcp()
    }

    async fn say_cut(&mut self) -> io::Result<()> {
        self.inner.say_cut().await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Gives these results, one a read, and then has nothing.
    struct Script(VecDeque<io::Result<&'static [u8]>>);

    impl AsyncRead for Script {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            match self.0.pop_front() {
                None => Poll::Pending,
                Some(Err(error)) => Poll::Ready(Err(error)),
                Some(Ok(bytes)) => {
                    let (now, rest) = bytes.split_at(bytes.len().min(buf.remaining()));
                    buf.put_slice(now);
                    if !rest.is_empty() {
                        self.0.push_front(Ok(rest));
                    }
                    Poll::Ready(Ok(()))
                }
            }
        }
    }

    fn coalescing<const N: usize>(script: [io::Result<&'static [u8]>; N]) -> Coalescing<Script> {
        Coalescing::new(Script(script.into()))
    }

    async fn read(from: &mut Coalescing<Script>) -> Result<Vec<u8>, io::ErrorKind> {
        let mut buffer = [0; 8];
        let read = from.read(&mut buffer).await.map_err(|error| error.kind())?;
        Ok(buffer[..read].to_vec())
    }

    #[tokio::test]
    async fn all_that_is_there_is_one_read() {
        let mut from = coalescing([Ok(&b"one"[..]), Ok(b"two"), Ok(b"three"), Ok(b""), Ok(b"")]);
        assert_eq!(read(&mut from).await.unwrap(), b"onetwoth");
        assert_eq!(read(&mut from).await.unwrap(), b"ree");
        assert_eq!(read(&mut from).await.unwrap(), b"", "the end");
        let mut from = coalescing([Ok(&b"some"[..])]);
        assert_eq!(read(&mut from).await.unwrap(), b"some", "nobody waits for more");
    }

    #[tokio::test]
    async fn a_buffer_that_has_enough_takes_no_more() {
        let mut from = Coalescing::until(Script([Ok(&b"one"[..]), Ok(b"two"), Ok(b"x")].into()), 4);
        assert_eq!(read(&mut from).await.unwrap(), b"onetwo");
        assert_eq!(read(&mut from).await.unwrap(), b"x");
    }

    #[tokio::test]
    async fn what_came_before_an_error_is_read_and_the_error_is_no_end() {
        let mut from = coalescing([Ok(&b"half"[..]), Err(io::ErrorKind::ConnectionReset.into()), Ok(b"")]);
        assert_eq!(read(&mut from).await.unwrap(), b"half");
        assert_eq!(read(&mut from).await.unwrap_err(), io::ErrorKind::ConnectionReset);
    }

    /// As rustls gives the records before one that it cannot take.
    #[tokio::test]
    async fn what_stands_behind_an_error_is_read_before_it() {
        let broken = || Err(io::ErrorKind::InvalidData.into());
        let mut from = coalescing([Ok(&b"some"[..]), broken(), Ok(b"good records"), broken()]);
        for part in ["somegood", " records"] {
            assert_eq!(read(&mut from).await.unwrap(), part.as_bytes());
        }
        assert_eq!(read(&mut from).await.unwrap_err(), io::ErrorKind::InvalidData);
        let mut from = coalescing([broken(), Ok(b"good"), Err(io::ErrorKind::UnexpectedEof.into())]);
        assert_eq!(read(&mut from).await.unwrap(), b"good");
        assert_eq!(read(&mut from).await.unwrap_err(), io::ErrorKind::InvalidData, "the first");
    }
}
