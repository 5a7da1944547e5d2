//! What an end keeps so that it can come back to its session.

use std::time::Duration;

use mykube_dial::Dialer;
use mykube_protocol::{Attempt, SessionId, Ticket};
use mykube_tunnel::Time;

/// What an end needs to come back to its session over another connection.
#[derive(Clone, Debug)]
pub struct Reconnect {
    /// The relay.
    pub dialer: Dialer,
    /// The session.
    pub session: SessionId,
    /// The claim that was paired.
    pub attempt: Attempt,
    /// A ticket of this session to begin with; the channel keeps the newest.
    pub ticket: Ticket,
    /// How long the session outlives its transport (`--resume-window`). Zero: it ends with it.
    pub window: Duration,
    /// When a dial last failed, if one did, before the ends had paired: the relay may admit it yet.
    pub unsure: Option<Time>,
}
