//! Takes request lines off a connection before hyper reads it, as hyper takes fewer targets than an API server does.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// A server's side of a connection.
pub(crate) struct Lines<S> {
    stream: S,
    /// The target of the latest request line.
    pub target: Arc<Mutex<String>>,
    /// Something was written and nothing read since: a request may begin here.
    begins: bool,
    line: Vec<u8>,
    out: Vec<u8>,
}

impl<S> Lines<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, target: Arc::default(), begins: true, line: Vec::new(), out: Vec::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lines<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.begins && this.out.is_empty() {
            let mut more = [0; 16 * 1024];
            let mut more = ReadBuf::new(&mut more);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut more))?;
            this.line.extend_from_slice(more.filled());
            let end = this.line.windows(2).position(|window| window == b"\r\n");
            let method = METHODS.into_iter().find(|method| this.line.starts_with(format!("{method} /").as_bytes()));
            match (method, end) {
                (Some(method), Some(end)) => {
                    let rest = this.line.split_off(end);
                    let line = String::from_utf8(std::mem::take(&mut this.line)).unwrap();
                    *this.target.lock().unwrap() = line.split(' ').nth(1).unwrap().to_owned();
                    this.out = [format!("{method} / HTTP/1.1").into_bytes(), rest].concat();
                    this.begins = false;
                }
                (Some(_), None) if !more.filled().is_empty() => {}
                _ => {
                    this.out = std::mem::take(&mut this.line);
                    this.begins = false;
                }
            }
        }
        if this.out.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let len = this.out.len().min(buf.remaining());
        buf.put_slice(&this.out[..len]);
        this.out.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lines<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.begins = true;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
