//! Bodies, counted as they pass; nothing is gathered. A body that breaks off fails after all its bytes have been passed
//! on.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::client::legacy::connect::CaptureConnection;

use crate::{
    exchange::{Exchange, Uploaded},
    flushes::{Flushes, Last},
};

/// A request's body on its way to the API server.
pub(crate) struct Upload(Option<Part>);

struct Part {
    body: Incoming,
    uploaded: Arc<Uploaded>,
    /// The connection that it goes to, once there is one.
    way: Option<Way>,
    last: Option<Last<hyper::Error>>,
}

/// The connection that a body goes to.
pub(crate) enum Way {
    /// A connection of the pool, known once hyper asks for the body.
    Pooled(CaptureConnection),
    /// A connection made for this request.
    Own(Flushes),
}

impl Upload {
    /// No body at all.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// The client's body, counted.
    pub(crate) fn of(body: Incoming, uploaded: Arc<Uploaded>) -> Self {
        Self(Some(Part { body, uploaded, way: None, last: None }))
    }

    /// Sets the connection that the body goes to.
    pub(crate) fn by(&mut self, way: Way) {
        if let Some(part) = &mut self.0 {
            part.way = Some(way);
        }
    }
}

impl Part {
    /// The flushes of the connection, if it tells.
    fn flushes(&self) -> Option<Flushes> {
        match self.way.as_ref()? {
            Way::Own(flushes) => Some(flushes.clone()),
            Way::Pooled(way) => {
                let mut extensions = http::Extensions::new();
                way.connection_metadata().as_ref()?.get_extras(&mut extensions);
                extensions.remove::<Flushes>()
            }
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(part) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        if let Some(last) = &mut part.last {
            return last.poll(cx).map(|error| error.map(Err));
        }
        let mut polled = Pin::new(&mut part.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => count(&part.uploaded.bytes, frame),
            Poll::Ready(Some(Err(_))) => part.uploaded.broken.store(true, Ordering::Relaxed),
            Poll::Ready(None) => part.uploaded.whole.store(true, Ordering::Relaxed),
            Poll::Pending => {}
        }
        if part.body.is_end_stream() {
            part.uploaded.whole.store(true, Ordering::Relaxed);
        }
        if let Poll::Ready(Some(Err(_))) = polled
            && let Some(flushes) = part.flushes()
            && let Poll::Ready(Some(Err(error))) = std::mem::replace(&mut polled, Poll::Pending)
        {
            return part.last.insert(Last::new(error, flushes)).poll(cx).map(|error| error.map(Err));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|part| part.last.is_none() && part.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |part| part.body.size_hint())
    }
}

/// An answer's body on its way to the client. Its end is the end of the exchange.
pub(crate) struct Answer {
    source: Source,
    exchange: Option<Exchange>,
}

enum Source {
    Text(Bytes),
    Upstream(Incoming, Flushes),
    /// The answer broke off: the connection to the API server broke, and the client must not see a clean end.
    Broken(Last<hyper::Error>),
}

impl Answer {
    /// An answer of ours, complete as it is.
    pub(crate) fn text(text: Bytes, exchange: Exchange) -> Self {
        exchange.bytes_out.store(text.len() as u64, Ordering::Relaxed);
        exchange.complete();
        Self { source: Source::Text(text), exchange: None }
    }

    /// An answer of ours to bytes that were no request.
    pub(crate) fn words(text: Bytes) -> Self {
        Self { source: Source::Text(text), exchange: None }
    }

    /// The API server's answer.
    pub(crate) fn upstream(body: Incoming, flushes: Flushes, exchange: Exchange) -> Self {
        Self { source: Source::Upstream(body, flushes), exchange: Some(exchange) }.at_end()
    }

    /// No body: the connection becomes something else.
    pub(crate) fn none() -> Self {
        Self::words(Bytes::new())
    }

    /// Completes the exchange at once if the body has nothing more to send.
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

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let polled = match &mut this.source {
            Source::Text(text) if text.is_empty() => Poll::Ready(None),
            Source::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Source::Upstream(body, flushes) => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Err(error))) => {
                    this.source = Source::Broken(Last::new(error, flushes.clone()));
                    return self.poll_frame(cx);
                }
                polled => polled,
            },
            Source::Broken(last) => last.poll(cx).map(|error| error.map(Err)),
        };
        match (&polled, &mut this.exchange) {
            (Poll::Ready(Some(Ok(frame))), Some(exchange)) => count(&exchange.bytes_out, frame),
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
            Source::Upstream(body, _) => body.is_end_stream(),
            Source::Broken(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(text.len() as u64),
            Source::Upstream(body, _) => body.size_hint(),
            Source::Broken(_) => SizeHint::default(),
        }
    }
}

fn count(counter: &AtomicU64, frame: &Frame<Bytes>) {
    if let Some(data) = frame.data_ref() {
        counter.fetch_add(data.len() as u64, Ordering::Relaxed);
    }
}
