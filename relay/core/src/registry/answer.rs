//! What the registry is asked with, and what it answers.

use std::time::{Duration, Instant};

use mykube_protocol::{Claims, FromRelay, Nameplate};

/// The time, on both clocks: one never jumps, the other is what tickets carry.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never goes back.
    pub mono: Instant,
    /// Seconds since the Unix epoch.
    pub unix: u64,
}

/// One WebSocket, as the registry names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub(super) u64);

/// What the sockets must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this text frame.
    Send(SocketId, FromRelay),
    /// Plain form: send the text `paired`.
    SendPaired(SocketId),
    /// Sign these claims and send them as `ticket:`.
    SendTicket(SocketId, Claims),
    /// Send a close frame with this code and reason, and end. The socket has no peer from now on.
    Close(SocketId, u16, &'static str),
    /// Forward between these two from now on. What the newcomer is told about it comes before, so that no frame does;
    /// what the one that stays is told comes after, so that its answer finds the newcomer.
    Link(SocketId, SocketId),
    /// This socket has no peer any more.
    Unlink(SocketId),
    /// Count this.
    Count(Count),
}

/// What is worth a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A client was confirmed.
    Paired,
    /// A client was refused.
    Refused,
    /// A code was burned.
    Burned,
    /// A newer socket took an older one's place.
    Replaced,
    /// An end of a paired session came back.
    Returned,
    /// A session was made again from a ticket.
    Readmitted,
}

/// Why no session is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// This address has too many.
    #[error("too many sessions from this address: end one, or wait for a code to expire")]
    Address,
    /// This organisation has too many.
    #[error("this organisation has too many sessions: end one, or wait for a code to expire")]
    Organisation,
    /// All are taken.
    #[error("this relay is full: try again later")]
    Full,
}

impl CreateError {
    /// When to ask again: a code that nobody typed is gone by then, or many a session.
    #[must_use]
    pub fn retry_after(self) -> Duration {
        Duration::from_secs(30)
    }
}

/// No waiting session has this nameplate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no session waits under this code: it may be mistyped, expired or used already; ask for a new one")]
pub struct NoSuchNameplate;

/// A close code and its reason.
pub type Refusal = (u16, &'static str);

/// Why a socket does not get its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It never will.
    Refused(Refusal),
    /// Another socket of this end has it. Ask again after this time, when something was heard from the new one.
    Taken(Duration),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A new session.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its nameplate.
    pub nameplate: Nameplate,
    /// The agent's ticket.
    pub claims: Claims,
    /// When the code ends, in seconds since the Unix epoch.
    pub expires_at: u64,
}

/// Sessions by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not paired yet.
    pub waiting: usize,
    /// Paired, both ends are here.
    pub paired: usize,
    /// Paired, one end is away.
    pub away: usize,
    /// Plain form.
    pub plain: usize,
}
