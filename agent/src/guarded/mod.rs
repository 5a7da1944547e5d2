//! Guarded mode: credentials never leave the cluster side.
//!
//! A client's stream carries one HTTP/1.1 connection. The [`Gateway`] reads its requests, decides on each by its
//! [`Policy`], forwards it with the agent's own credentials through the [`Forwarder`], and writes a line of the
//! [`Audit`] log. Bodies and upgraded connections stream both ways; nothing is gathered.
//!
//! ```text
//! stream -> intake (heads, and where bodies end) -> hyper (bodies, answers) -> request_info (path as the API server reads it)
//!        -> headers (hop by hop, who somebody is) -> policy -> audit (room for a line) -> forwarder -> API server
//! ```
//!
//! The real fence is RBAC on the agent's identity; the policy is in front of it.

pub mod audit;
mod body;
mod connection;
mod connector;
mod exchange;
mod flushes;
mod forwarder;
mod framing;
mod head;
mod headers;
mod hints;
mod identity;
mod inner;
mod intake;
mod policy;
mod record;
mod request_info;
mod retarget;
mod room;
mod rules;
mod scope;
mod status;
mod upgrade;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mykube_link::drain;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use self::audit::Promise;
pub use self::{
    audit::{Audit, AuditFull, AuditSettings, ClientEvent},
    forwarder::Forwarder,
    identity::IdentityError,
    inner::Wanted,
    policy::{Asked, Policy, PolicyError, Refusal},
    record::{Recorder, RecorderError},
    request_info::{PathError, RequestInfo},
    room::HeadRoom,
    rules::{RULES_FILE_MAX, Rule, RulesError, read_rules},
};
use self::{
    connection::Connection,
    intake::{HeadLimits, Intake},
};

/// How long an answered connection that we end waits for the other end's word, so that the answer is read.
const LINGER: Duration = Duration::from_secs(5);
/// What hyper reads and writes at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// Limits and patience.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Requests forwarded at once, all clients together: bounds our sockets and the API server's.
    pub upstream_connections: usize,
    /// How long a request waits for one of them before it is answered 429.
    pub queue_timeout: Duration,
    /// Longest head of a request, in bytes, as the API server counts it: 4 KiB more are taken. A longer one is answered 431.
    pub header_max: usize,
    /// How long a head may take from its first byte; then 408.
    pub header_timeout: Duration,
    /// How long TLS to the API server may take.
    pub handshake_timeout: Duration,
    /// How long an idle connection to the API server is kept: less than the API server keeps it.
    pub pool_idle: Duration,
    /// How often token and certificate files are looked at.
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
            reread: crate::credentials::POLL,
        }
    }
}

/// Whom a stream belongs to.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// The client's name, for the audit log.
    pub name: String,
    /// Its number in `mykube sessions`, where it is there: several may have one name.
    pub id: Option<u64>,
    /// What it may do. [`Policy::check`] has passed.
    pub policy: Arc<Policy>,
    /// What the heads of its requests may hold.
    pub heads: HeadRoom,
}

/// Serves clients, each under its policy. Clones share all there is.
#[derive(Clone)]
pub struct Gateway {
    forwarder: Arc<Forwarder>,
    audit: Audit,
    recorder: Option<Recorder>,
    warned: Arc<AtomicBool>,
}

impl Gateway {
    /// A gateway to the forwarder's API server.
    #[must_use]
    pub fn new(forwarder: Arc<Forwarder>, audit: Audit) -> Self {
        Self { forwarder, audit, recorder: None, warned: Arc::default() }
    }

    /// The same, recording `exec` and `attach`.
    #[must_use]
    pub fn recording(self, recorder: Recorder) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    /// Whether sessions are recorded.
    #[must_use]
    pub fn records(&self) -> bool {
        self.recorder.is_some()
    }

    /// The log, for what happens to clients.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Serves HTTP/1.1 on a stream until it ends, or the visitor's time does. Dropped, it ends the stream and what it
    /// carries.
    pub async fn serve<S>(&self, stream: S, visitor: Arc<Visitor>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        tokio::select! {
            () = self.serve_connection(stream, &visitor) => {}
            () = visitor.policy.expired() => tracing::debug!(client = %visitor.name, "the access expired, its stream is ended"),
        }
    }

    async fn serve_connection<S>(&self, stream: S, visitor: &Visitor)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let settings = &self.forwarder.settings;
        let connection = Connection::new(self, visitor);
        let limits =
            HeadLimits { max: settings.header_max, time: settings.header_timeout, room: visitor.heads.clone() };
        let intake = Intake::new(stream, connection.progress.clone(), limits);
        let served = &connection;
        let mut http = http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            // On the heap: an idle connection holds no room for a request, and nothing moves it.
            .serve_connection(TokioIo::new(intake), service_fn(move |request| Box::pin(served.handle(request))))
            .with_upgrades();
        let ended = (&mut http).await;
        if let Err(error) = &ended {
            tracing::debug!(client = %visitor.name, ?error, "a client's connection ended early");
        }
        if let Some(upgrading) = connection.upgrading() {
            return upgrading.run().await;
        }
        // Nothing is waited for after a failure: the client must see it at once, and not as a clean end.
        let answered = ended.map_or_else(|error| error.is_parse(), |()| true);
        if let Some(parts) = http.into_parts().filter(|_| answered) {
            linger(parts.io.into_inner()).await;
        }
    }
}

/// Waits, a while, until the other end is done too.
async fn linger(mut stream: impl AsyncRead + Unpin) {
    let _ = tokio::time::timeout(LINGER, drain(&mut stream)).await;
}
