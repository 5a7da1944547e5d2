//! Requests that the relay does not answer itself: who does, and what the relay knows of them.

use std::{net::IpAddr, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::runtime::Handle;

use crate::socket::Socket;

/// Answers every request to a path that is none of the relay's own: accounts, where a relay has them. It is called on a
/// thread that carries sessions, and must not keep it.
pub trait Fallback: Send + Sync {
    /// The answer to one request, whose body is still on the connection.
    fn answer(&self, request: Request<Incoming>, arrival: Arrival) -> Answering;

    /// Whether it can answer now: what `/readyz` says. Sessions need none of it, and go on.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether this path is a WebSocket's: then a request to it goes to [`Fallback::accept`].
    fn has_socket(&self, path: &str) -> bool;

    /// Whether a WebSocket may be opened. The handshake (RFC 6455) is the relay's: it is known to be one.
    fn accept(&self, request: Request<()>, arrival: Arrival) -> Accepting;
}

/// An answer that is being made to somebody who wants a WebSocket: it is taken, or this is why not.
pub type Accepting = Pin<Box<dyn Future<Output = Result<Accepted, Response<Full<Bytes>>>> + Send>>;

/// A WebSocket that is taken: what serves it, and where that runs.
pub struct Accepted {
    /// The socket's own event loop is this one's from then on.
    pub runtime: Handle,
    /// Serves it until its end.
    pub serve: Serve,
}

/// Serves a WebSocket until its end.
pub type Serve = Box<dyn FnOnce(Socket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

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
