//! A connection whose first request has a target that hyper cannot write: `http::Uri` holds at most 65,534 bytes, and
//! not every character that the API server takes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::Method;
use hyper::rt::{Read, ReadBufCursor, Write};

/// A connection for one request, which hyper gets with the target `/`.
pub(crate) struct Retarget<T> {
    io: T,
    /// hyper's request line, and ours that replaces it, until that is written.
    line: Option<(String, Bytes)>,
}

impl<T> Retarget<T> {
    /// `None` if the target could end its line. No head that was read has such a target.
    pub(crate) fn new(io: T, method: &Method, target: &str) -> Option<Self> {
        let line = |target: &str| format!("{method} {target} HTTP/1.1\r\n");
        let fits = !target.is_empty() && !target.bytes().any(|byte| byte <= b' ' || byte == 0x7f);
        fits.then(|| Self { io, line: Some((line("/"), line(target).into())) })
    }

    pub(crate) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: Write + Unpin> Retarget<T> {
    /// Writes our line in place of hyper's; returns once how much of hyper's bytes that was.
    fn poll_line(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some((theirs, ours)) = &mut self.line else { return Poll::Ready(Ok(0)) };
        if !buf.starts_with(theirs.as_bytes()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a request without its line")));
        }
        while !ours.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, ours))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            ours.advance(written);
        }
        let len = theirs.len();
        self.line = None;
        Poll::Ready(Ok(len))
    }
}

impl<T: Read + Unpin> Read for Retarget<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: Write + Unpin> Write for Retarget<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.line.is_some() {
            return self.poll_line(cx, buf);
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.line.is_some() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_line(cx, first);
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn the_line_is_ours_and_the_rest_hypers() {
        let (near, mut far) = tokio::io::duplex(7);
        let target = format!("/a?{}", "\"<x>`".repeat(20));
        let mut near = Retarget::new(TokioIo::new(near), &Method::GET, &target).unwrap();
        let writing = async {
            let mut rest: &[u8] = b"GET / HTTP/1.1\r\nhost: GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n";
            while !rest.is_empty() {
                let written = std::future::poll_fn(|cx| {
                    Pin::new(&mut near).poll_write_vectored(cx, &[io::IoSlice::new(&[]), io::IoSlice::new(rest)])
                });
                let written = written.await.unwrap();
                rest = &rest[written..];
            }
            drop(near);
        };
        let mut read = String::new();
        let (_, got) = tokio::join!(writing, far.read_to_string(&mut read));
        got.unwrap();
        assert_eq!(read, format!("GET {target} HTTP/1.1\r\nhost: GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n"));
        for target in ["", "/a b", "/a\r\nX: y", "/a\x7f", "/a\0"] {
            assert!(Retarget::new((), &Method::GET, target).is_none(), "{target:?}");
        }
        let (near, _far) = tokio::io::duplex(64);
        let mut near = Retarget::new(TokioIo::new(near), &Method::GET, "/a").unwrap();
        let odd = std::future::poll_fn(|cx| Pin::new(&mut near).poll_write(cx, b"POST / HTTP/1.1\r\n"));
        assert!(odd.await.is_err());
    }
}
