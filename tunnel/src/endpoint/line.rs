//! The connection that carries a session, or the wait for one.

use std::time::Duration;

use super::{
    backoff::Backoff,
    types::{ConnectionId, Lost},
};
use crate::time::Time;

/// A connection whose peer is away is asked for life this often, by WebSocket pings the relay answers ...
const RELAY_PING: Duration = Duration::from_secs(15);
/// ... and is dead when no answer comes within this, however late it was asked.
const RELAY_ANSWERS: Duration = Duration::from_secs(5);

/// What carries the session.
#[derive(Debug)]
pub(super) enum Line {
    /// Nothing does; the next dial begins at `due`, or one is under way.
    Down { backoff: Backoff, due: Option<Time> },
    /// This connection, as far as is known.
    Up(Connection),
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each says one thing of it, and none excludes another")]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// When the relay last said something of its own.
    pub(super) heard: Time,
    /// When the relay was last asked to say something.
    pub(super) asked: Option<Time>,
    pub(super) ping: bool,
    /// The connection takes no bytes: until it does, nothing that was asked has left, and silence means nothing.
    pub(super) blocked: bool,
    /// Whether the system would still send its packets from where it was opened.
    pub(super) routed: bool,
    /// Another connection is dialled beside this one, and given up once this one shows life.
    pub(super) on_trial: bool,
    /// A write has failed, for this reason. The session waits until that time for the relay's close frame, which says more.
    pub(super) failed: Option<(Lost, Time)>,
}

impl Connection {
    pub(super) fn new(now: Time, id: ConnectionId) -> Self {
        Self { id, heard: now, asked: None, ping: false, blocked: false, routed: true, on_trial: false, failed: None }
    }

    /// When the relay's silence is to be looked at.
    pub(super) fn relay_due(&self) -> Time {
        match self.asked {
            Some(asked) if asked > self.heard => asked + RELAY_ANSWERS,
            _ => self.heard + RELAY_PING,
        }
    }
}
