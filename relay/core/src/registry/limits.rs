//! Limits and times of sessions.

use std::time::Duration;

use mykube_protocol::limits::{CODE_TTL_MAX, PAIR_TICKET_TTL, SESSION_TICKET_RENEWALS, SESSION_TICKET_TTL};

/// How long after a code's time a handshake that began in time may still take.
pub(super) const CODE_GRACE: Duration = Duration::from_secs(15);
/// How long a waiting session stays without its agent's socket: time to reconnect, but not the rest of the code's time.
pub(super) const AGENT_GRACE: Duration = Duration::from_secs(30);

/// Limits and times; all of them are settings of the relay.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a code waits.
    pub code_ttl: Duration,
    /// How long a claim may take to open its socket.
    pub pair_ticket_ttl: Duration,
    /// How long a session ticket lives; it is renewed in band several times within that.
    pub ticket_ttl: Duration,
    /// How long one end waits for the other to come back.
    pub session_grace: Duration,
    /// Sessions in all.
    pub sessions: usize,
    /// Sessions of one address; an organisation may have as many.
    pub sessions_per_address: usize,
    /// Sessions of one address that wait to be paired, so that no single address makes everybody's codes longer. An organisation
    /// may have as many.
    pub waiting_per_address: usize,
    /// How long a legacy code waits.
    pub legacy_ttl: Duration,
    /// Pair requests for one legacy code.
    pub legacy_attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            code_ttl: CODE_TTL_MAX,
            pair_ticket_ttl: PAIR_TICKET_TTL,
            ticket_ttl: SESSION_TICKET_TTL,
            session_grace: Duration::from_hours(24),
            sessions: 10_000,
            sessions_per_address: 256,
            waiting_per_address: 16,
            legacy_ttl: Duration::from_mins(10),
            legacy_attempts: 5,
        }
    }
}

impl Limits {
    /// How often session tickets are renewed.
    pub(super) fn renewal(&self) -> Duration {
        self.ticket_ttl / SESSION_TICKET_RENEWALS
    }
}
