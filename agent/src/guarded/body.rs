//! Bodies, counted as they pass; nothing is gathered.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::exchange::Exchange;

/// How far a request's body has come.
#[derive(Debug, Default)]
pub(super) struct Uploaded {
    pub(super) bytes: AtomicU64,
    pub(super) whole: AtomicBool,
    /// It could not be read to its end.
    pub(super) broken: AtomicBool,
}

/// A request's body on its way to the API server.
pub(super) struct Upload(Option<(Incoming, Arc<Uploaded>)>);

impl Upload {
    /// No body at all.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The client's, counted.
    pub(super) fn of(body: Incoming, uploaded: Arc<Uploaded>) -> Self {
        Self(Some((body, uploaded)))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some((body, uploaded)) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => count(&uploaded.bytes, frame),
            Poll::Ready(Some(Err(_))) => uploaded.broken.store(true, Ordering::Relaxed),
            Poll::Ready(None) => uploaded.whole.store(true, Ordering::Relaxed),
            Poll::Pending => {}
        }
        if body.is_end_stream() {
            uploaded.whole.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}

/// An answer's body on its way to the client. Its end is the end of the exchange.
pub(super) struct Answer {
    source: Source,
    exchange: Option<Exchange>,
}

enum Source {
    Text(Bytes),
    Upstream(Incoming),
}

impl Answer {
    /// Our own words, complete as they are.
    pub(super) fn text(text: Bytes, exchange: Exchange) -> Self {
        exchange.bytes_out.store(text.len() as u64, Ordering::Relaxed);
        exchange.complete();
        Self { source: Source::Text(text), exchange: None }
    }

    /// Our own words to what was no request.
    pub(super) fn words(text: Bytes) -> Self {
        Self { source: Source::Text(text), exchange: None }
    }

    /// The API server's.
    pub(super) fn upstream(body: Incoming, exchange: Exchange) -> Self {
        Self { source: Source::Upstream(body), exchange: Some(exchange) }.at_end()
    }

    /// None: the connection becomes something else.
    pub(super) fn none() -> Self {
        Self::words(Bytes::new())
    }

    /// A body that has nothing (more) to say is complete.
    fn at_end(mut self) -> Self {
        if self.is_end_stream() {
            self.complete();
        }
        self
    }

    fn complete(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.complete();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Text(text) if text.is_empty() => Poll::Ready(None),
            Source::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Source::Upstream(body) => Pin::new(body).poll_frame(cx),
        };
        match (&polled, &mut this.exchange) {
            (Poll::Ready(Some(Ok(frame))), Some(exchange)) => count(&exchange.bytes_out, frame),
            // Dropped here and now: the connection to the API server broke, and the client must not see a clean end.
            (Poll::Ready(Some(Err(_))), _) => drop(this.exchange.take()),
            (Poll::Ready(None), _) => this.complete(),
            _ => {}
        }
        if this.is_end_stream() {
            this.complete();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Text(text) => text.is_empty(),
            Source::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(text.len() as u64),
            Source::Upstream(body) => body.size_hint(),
        }
    }
}

fn count(counter: &AtomicU64, frame: &Frame<Bytes>) {
    if let Some(data) = frame.data_ref() {
        counter.fetch_add(data.len() as u64, Ordering::Relaxed);
    }
}
