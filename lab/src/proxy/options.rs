//! What a forwarder is to do, and what it counts and is told while it does.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::atomic::AtomicU64, time::Duration};

use crate::Namespace;

/// Where connections lead.
#[derive(Debug, Clone)]
pub enum ForwardTarget {
    /// All to one place.
    To(SocketAddr),
    /// Where `CONNECT host:port` says. Names of the table lead where it says, others where DNS says.
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

/// What a forwarder does to its connections.
#[derive(Debug, Clone)]
pub struct ForwardOptions {
    /// Where they lead.
    pub target: ForwardTarget,
    /// Cuts a connection on which nothing moved for so long.
    pub idle: Option<Duration>,
    /// Cuts a connection of this age, busy or not.
    pub life: Option<Duration>,
    /// Bytes a second of each connection and direction.
    pub rate: Option<u64>,
    /// How it cuts, also when told.
    pub cut: Cut,
    /// Bytes of the buffer of each direction.
    pub buffer: usize,
    /// Threads that forward.
    pub threads: usize,
    /// The namespace that connections are made from, by its path; `None` for the caller's.
    pub connect_in: Option<PathBuf>,
}

impl ForwardOptions {
    /// As fast as it goes, cutting nothing.
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

/// What it did so far, as it counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// What it is told while it runs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Orders {
    pub(super) paused: bool,
    pub(super) refusing: bool,
    /// Connections that were accepted under a lower number are to be cut.
    pub(super) generation: u64,
    pub(super) stop: bool,
}
