//! Requests that the relay does not answer itself: who does, and what the relay knows of them.

use std::{net::IpAddr, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

/// Answers every request to a path that is none of the relay's own: accounts, where a relay has them. It is called on a
/// thread that carries sessions, and must not keep it.
pub trait Fallback: Send + Sync {
    /// The answer to one request, whose body is still on the connection.
    fn answer(&self, request: Request<Incoming>, arrival: Arrival) -> Answering;

    /// Whether it can answer now: what `/readyz` says. Sessions need none of it, and go on.
    fn is_ready(&self) -> bool {
        true
    }
}

/// An answer that is being made.
pub type Answering = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Whose it is: the peer, or whom a trusted proxy named.
    pub address: IpAddr,
    /// What it came over.
    pub transport: Transport,
}

/// Who may have read a request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Nobody: it came over this relay's own TLS.
    Tls,
    /// A trusted proxy, which ends TLS or stands where none is needed, and does not say that it was asked in plain HTTP.
    Proxy,
    /// Everybody between the peer and this relay, or between the client and a proxy.
    Plain,
}
