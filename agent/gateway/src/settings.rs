//! Limits and timeouts of the gateway.

use std::time::Duration;

use mykube_agent_upstream::refresh::POLL;

/// Limits and timeouts.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Requests forwarded at once, for all clients together: bounds our sockets and the API server's.
    pub upstream_connections: usize,
    /// How long a request waits for one of them before it is answered 429.
    pub queue_timeout: Duration,
    /// Longest head of a request, in bytes. Like the API server, the gateway takes 4 KiB more. A longer one is answered
    /// 431.
    pub header_max: usize,
    /// How long a head may take from its first byte; then 408.
    pub header_timeout: Duration,
    /// How long TLS to the API server may take.
    pub handshake_timeout: Duration,
    /// How long an idle connection to the API server is kept: less than the API server keeps it.
    pub pool_idle: Duration,
    /// How often token and certificate files are read again.
    pub reread: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upstream_connections: 512,
            queue_timeout: Duration::from_secs(30),
            header_max: 1024 * 1024,
            header_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            pool_idle: Duration::from_secs(60),
            reread: POLL,
        }
    }
}
