//! Arguments and results of the registry's methods.

use std::time::{Duration, Instant};

use mykube_protocol::{Claims, FromRelay, Nameplate};

use super::limits::AGENT_GRACE;

/// The time on both clocks: one never jumps, and tickets have the time of the other.
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

/// What the caller must do with its sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this text frame.
    Send(SocketId, FromRelay),
    /// Legacy form: send the text `paired`.
    SendPaired(SocketId),
    /// Sign these claims and send them as `ticket:`.
    SendTicket(SocketId, Claims),
    /// Send a close frame with this code and reason, and end. The socket has no peer from now on.
    Close(SocketId, u16, &'static str),
    /// Forward between these two from now on. The newcomer is told before this action, so that no frame reaches it earlier; the
    /// end that was here is told after it, so that its answer reaches the newcomer.
    Link(SocketId, SocketId),
    /// This socket has no peer any more.
    Unlink(SocketId),
    /// Count this.
    Count(Count),
}

/// Events that the relay's metrics count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A client was confirmed.
    Paired,
    /// A client was refused.
    Refused,
    /// A code was burned.
    Burned,
    /// A newer socket took an older one's slot.
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
    /// The relay has as many sessions as it may.
    #[error("this relay is full: try again later")]
    Full,
}

impl CreateError {
    /// When to ask again: a code whose agent is not there any more is gone by then.
    #[must_use]
    pub fn retry_after(self) -> Duration {
        AGENT_GRACE
    }
}

/// No waiting session has this nameplate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no session waits under this code: it may be mistyped, expired or used already; ask for a new one")]
pub struct NoSuchNameplate;

/// A close code and its reason.
pub type Refusal = (u16, &'static str);

/// Why a socket does not get its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It will not get it.
    Refused(Refusal),
    /// Another socket of this end has it. Ask again after this time, and once bytes have come from the new socket.
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
    /// The claims of the agent's ticket.
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
    /// Legacy form, in any state.
    pub legacy: usize,
}
