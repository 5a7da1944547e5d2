//! What an endpoint is told, and what it tells.

use std::time::Duration;

use mykube_protocol::{Attempt, Ticket, close};

use crate::{
    session::{self, SessionError},
    time::Time,
};

/// What an end needs to come back to its session over another connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The claim that was paired.
    pub attempt: Attempt,
    /// A ticket of this session to begin with; the endpoint keeps the newest.
    pub ticket: Ticket,
    /// How long the session outlives its transport (`--resume-window`). Zero: it ends with it.
    pub window: Duration,
    /// When a dial last failed, if one did, before the ends had paired: the relay may admit it yet.
    pub unsure: Option<Time>,
}

/// A dial, and the connection that comes of it. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(super) u64);

impl ConnectionId {
    /// The connection over which the ends have paired.
    pub const FIRST: Self = Self(0);
}

/// How a connection to the relay ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct Lost {
    code: Option<u16>,
    reason: String,
    words: String,
}

impl Lost {
    /// By a close frame; `words` tell a person.
    #[must_use]
    pub fn closed(code: u16, reason: &str, words: String) -> Self {
        Self { code: Some(code), reason: reason.to_owned(), words }
    }

    /// The connection ended without a close frame.
    #[must_use]
    pub fn broken(why: impl std::fmt::Display) -> Self {
        let words = format!("the connection to the relay was lost: {why}");
        Self { code: None, reason: String::new(), words }
    }

    /// The close code, if there was one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.code
    }

    /// The delay a relay that restarts asks for.
    pub(super) fn asked_delay(&self) -> Option<Duration> {
        close::retry_after(&self.reason)
    }
}

/// Why a dial came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialFailure {
    /// No host answers.
    Unreachable,
    /// A host answers, in these words: the relay, or for a while another in its place (a login page, a proxy).
    Answered(String),
    /// The relay does not take the ticket and never will.
    TicketRefused(String),
}

/// How a channel ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// This end closed it.
    #[error("closed here")]
    Here,
    /// The other end closed it, in these words (cleaned).
    #[error("the other end closed the session: {0}")]
    Bye(String),
    /// The connection was lost, and for the resume window nothing brought it back.
    #[error("{reason}, and it did not come back within {}", whole(*.window))]
    Window {
        /// Why the ends do not hear each other, for a person.
        reason: String,
        /// `--resume-window`.
        window: Duration,
    },
    /// The relay closed the connection for good.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The relay does not take this end's ticket any more.
    #[error("{0}")]
    Refused(String),
    /// The session itself failed.
    #[error(transparent)]
    Session(#[from] SessionError),
}

fn whole(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// Whether the two ends hear each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerStatus {
    /// The ends hear each other, as far as is known.
    Up,
    /// The ends do not hear each other; the session waits, and everything in it.
    Away {
        /// Since when.
        since: Time,
        /// Why, for a person.
        reason: String,
    },
}

impl PeerStatus {
    /// Whether the two ends hear each other.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self == Self::Up
    }
}

/// What the application hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session has an event.
    Session(session::Event),
    /// The ends hear each other again, or do not any more, or the reason why not is another.
    Status(PeerStatus),
    /// The session waits for another connection. For the log: the status says so too.
    Waits(Lost),
    /// The channel ended; streams fail with it. Said once.
    Ended(End),
}

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Dial, with [`Endpoint::ticket`](super::Endpoint::ticket).
    Dial(ConnectionId),
    /// That dial is wanted no more.
    GiveUp(ConnectionId),
    /// That connection is not read and written any more, and dropped.
    LetGo(ConnectionId),
    /// Everything is over. The last order.
    Over,
}
