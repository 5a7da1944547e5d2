//! What a relay is told at its start.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use ipnet::IpNet;
use mykube_protocol::limits;
use mykube_relay_core::{registry::Limits, silence::Silence};

use crate::carriers;

/// Everything a [`crate::Relay`] needs; [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where ends connect. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where metrics are served, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Threads that carry.
    pub threads: NonZeroUsize,
    /// Holds the ticket key.
    pub data_dir: PathBuf,
    /// Certificate chain and key, PEM files.
    pub tls: Option<TlsFiles>,
    /// Also serve the published form.
    pub plain_form: bool,
    /// Whose `X-Forwarded-For`, or PROXY header, is believed: proxies, and no clients.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections begin with a PROXY protocol version 2 header, and `X-Forwarded-For` is not read.
    pub proxy_protocol: bool,
    /// `Origin` values admitted on WebSockets.
    pub allow_origins: Vec<String>,
    /// Sessions, codes and tickets.
    pub sessions: Limits,
    /// Connections at once, in all.
    pub connections: usize,
    /// Connections at once, an address.
    pub connections_per_address: usize,
    /// Requests a minute an address on `/api/*`; 0 is no limit.
    pub api_requests_per_minute: u32,
    /// Body of an API request, in bytes.
    pub request_body_max: usize,
    /// A whole frame in version 2, in bytes.
    pub frame_max: usize,
    /// A whole message in the plain form, in bytes.
    pub plain_frame_max: usize,
    /// What one direction may hold while it waits for a slow reader, in bytes.
    pub buffer: usize,
    /// TLS handshake and PROXY header together.
    pub handshake_timeout: Duration,
    /// A request's header and body, each; also an idle kept-alive connection.
    pub header_timeout: Duration,
    /// A version 2 end that said nothing for so long is pinged.
    pub ping_interval: Duration,
    /// One that said nothing for so long, not even a pong, is closed.
    pub silence_limit: Duration,
    /// What a closing socket has to take what waits for it and to answer.
    pub close_timeout: Duration,
    /// Ends are told to come back at a random moment within this time after a drain.
    pub drain_spread: Duration,
}

/// PEM files, looked at again every `reload_interval`.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate chain, the relay's own first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// How often the files are looked at.
    pub reload_interval: Duration,
}

/// How long a drain takes at the most.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(4);

impl Config {
    /// The defaults, on a loopback port, with this data directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            metrics_listen: None,
            threads: carriers::default_count(),
            data_dir: data_dir.into(),
            tls: None,
            plain_form: false,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            allow_origins: Vec::new(),
            sessions: Limits::default(),
            connections: 25_000,
            connections_per_address: 1024,
            api_requests_per_minute: limits::API_REQUESTS_PER_MINUTE,
            request_body_max: limits::REQUEST_BODY_MAX,
            frame_max: limits::FRAME_MAX,
            plain_frame_max: limits::PLAIN_FRAME_MAX,
            buffer: 128 * 1024,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(15),
            silence_limit: Duration::from_secs(45),
            close_timeout: Duration::from_secs(2),
            drain_spread: Duration::from_secs(2),
        }
    }

    pub(crate) fn silence(&self) -> Silence {
        Silence { ping_interval: self.ping_interval, limit: self.silence_limit }
    }
}
