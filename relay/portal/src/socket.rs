//! WebSockets of the portal: their bytes, and what serves them.

use std::pin::Pin;

use mykube_protocol::control::PATH;
use tokio::io::{AsyncRead, AsyncWrite};

/// Whether this path is a WebSocket's.
#[must_use]
pub fn is_socket(path: &str) -> bool {
    path == PATH
}

/// The bytes of a WebSocket behind its handshake.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Serves a WebSocket until its end. It runs where the portal does.
pub type Serve = Box<dyn FnOnce(Box<dyn Stream>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;
