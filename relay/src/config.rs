//! The settings of a relay.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use ipnet::IpNet;
use mykube_protocol::limits;
use mykube_relay_core::{defaults, registry::Limits, silence::Silence};

use crate::workers;

/// Everything a [`crate::Relay`] needs; [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address on which ends connect. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The address on which metrics are served, if they are.
    pub metrics_listen: Option<SocketAddr>,
    /// Worker threads: they serve the sockets.
    pub threads: NonZeroUsize,
    /// Holds the ticket key.
    pub data_dir: PathBuf,
    /// Certificate chain and key, PEM files.
    pub tls: Option<TlsFiles>,
    /// Also serve the legacy form.
    pub legacy: bool,
    /// Networks of proxies whose `X-Forwarded-For`, or PROXY header, is believed. They are to hold no clients.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections begin with a PROXY protocol version 2 header, and `X-Forwarded-For` is not read.
    pub proxy_protocol: bool,
    /// `Origin` values admitted on WebSockets.
    pub allow_origins: Vec<String>,
    /// Sessions, codes and tickets.
    pub sessions: Limits,
    /// Connections at once, in all.
    pub connections: usize,
    /// Connections at once of one address.
    pub connections_per_address: usize,
    /// Requests to `/api/*` of one address in a minute; 0 is no limit.
    pub api_requests_per_minute: u32,
    /// Body of an API request, in bytes.
    pub request_body_max: usize,
    /// A whole frame in version 2, in bytes.
    pub frame_max: usize,
    /// A whole message in the legacy form, in bytes.
    pub legacy_frame_max: usize,
    /// Bytes that one direction may hold while it waits for a slow reader.
    pub buffer: usize,
    /// How long the PROXY header and the TLS handshake may take together.
    pub handshake_timeout: Duration,
    /// How long a request's header may take, and its body; also how long a kept-alive connection may idle.
    pub header_timeout: Duration,
    /// A version 2 end that has sent nothing for this long is pinged.
    pub ping_interval: Duration,
    /// The socket of one that has sent nothing for this long, not even a pong, is closed.
    pub silence_limit: Duration,
    /// How long a closing socket has to take the data that waits for it, and to answer the close frame.
    pub close_timeout: Duration,
    /// A drain tells each end to come back at a random moment within this time.
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
            threads: workers::default_count(),
            data_dir: data_dir.into(),
            tls: None,
            legacy: false,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            allow_origins: Vec::new(),
            sessions: Limits::default(),
            connections: 25_000,
            connections_per_address: 1024,
            api_requests_per_minute: limits::API_REQUESTS_PER_MINUTE,
            request_body_max: limits::REQUEST_BODY_MAX,
            frame_max: limits::FRAME_MAX,
            legacy_frame_max: limits::LEGACY_FRAME_MAX,
            buffer: defaults::BUFFER,
            handshake_timeout: defaults::HANDSHAKE_TIMEOUT,
            header_timeout: Duration::from_secs(10),
            ping_interval: defaults::SILENCE.ping_interval,
            silence_limit: defaults::SILENCE.limit,
            close_timeout: defaults::CLOSE_TIMEOUT,
            drain_spread: Duration::from_secs(2),
        }
    }

    pub(crate) fn silence(&self) -> Silence {
        Silence { ping_interval: self.ping_interval, limit: self.silence_limit }
    }
}
