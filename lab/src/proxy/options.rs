//! The options of a forwarder, its counts, and the commands that it takes while it runs.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::atomic::AtomicU64, time::Duration};

use crate::Namespace;

/// Where connections are forwarded to.
#[derive(Debug, Clone)]
pub enum ForwardTarget {
    /// All to one address.
    To(SocketAddr),
    /// To the address in `CONNECT host:port`. The table replaces names of its own; others are resolved by DNS.
    Connect(HashMap<String, SocketAddr>),
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cut {
    /// Both sides see an end of file (FIN).
    #[default]
    Close,
    /// Both sides see a reset (RST).
    Reset,
}

/// How a forwarder treats connections.
#[derive(Debug, Clone)]
pub struct ForwardOptions {
    /// Where they lead.
    pub target: ForwardTarget,
    /// Cuts a connection on which nothing moved for this long.
    pub idle: Option<Duration>,
    /// Cuts a connection of this age, busy or not.
    pub life: Option<Duration>,
    /// Bytes a second of each connection and direction.
    pub rate: Option<u64>,
    /// How it cuts, also on command.
    pub cut: Cut,
    /// Bytes of the buffer of each direction.
    pub buffer: usize,
    /// Threads that forward.
    pub threads: usize,
    /// The namespace that connections are made from, by its path; `None` for the caller's.
    pub connect_in: Option<PathBuf>,
}

impl ForwardOptions {
    /// No limit of rate, and no cuts.
    #[must_use]
    pub fn new(target: ForwardTarget) -> Self {
        Self {
            target,
            idle: None,
            life: None,
            rate: None,
            cut: Cut::Close,
            buffer: 256 * 1024,
            threads: 1,
            connect_in: None,
        }
    }

    /// To one place.
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        Self::new(ForwardTarget::To(address))
    }

    /// An HTTP proxy, for `HTTPS_PROXY`.
    #[must_use]
    pub fn connect() -> Self {
        Self::new(ForwardTarget::Connect(HashMap::new()))
    }

    /// Makes its connections from this namespace, wherever it listens.
    #[must_use]
    pub fn from_namespace(mut self, namespace: &Namespace) -> Self {
        self.connect_in = Some(namespace.path());
        self
    }
}

/// Its counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// The commands that it was given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Orders {
    pub(super) paused: bool,
    pub(super) refusing: bool,
    /// Connections with a lower number are cut.
    pub(super) generation: u64,
    pub(super) stop: bool,
}
