//! A session as the registry holds it, and the sockets of its two ends.

use std::time::Instant;

use mykube_protocol::{Attempt, Class, Nameplate, Role, relay_text::Peer};

use super::answer::SocketId;
use crate::owner::Owner;

#[derive(Debug)]
pub(super) struct SessionEntry {
    pub(super) owner: Owner,
    pub(super) state: State,
    pub(super) agent: EndSlot,
    pub(super) client: EndSlot,
    pub(super) deadline: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum State {
    /// Waits for its client. The nameplate is free again once the code's time is over.
    Waiting { nameplate: Option<Nameplate>, code_ends: Instant, agent_until: Option<Instant> },
    /// The code is spent; the agent's socket may linger.
    Burned { until: Instant },
    /// The ends know each other; `attempt` is the one that was confirmed.
    Paired { attempt: Option<Attempt>, renew_at: Instant, half_until: Option<Instant> },
}

/// An end of a session: the socket that has it, if one does, and when a newer one last took it over.
#[derive(Debug, Default)]
pub(super) struct EndSlot {
    pub(super) socket: Option<Socket>,
    pub(super) replaced: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) id: SocketId,
    pub(super) class: Class,
}

impl SessionEntry {
    pub(super) fn slot_mut(&mut self, role: Role) -> &mut EndSlot {
        match role {
            Role::Agent => &mut self.agent,
            Role::Client => &mut self.client,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.agent.socket.is_some() && self.client.socket.is_some()
    }

    /// How `peer:` frames name the ends: by attempt until the session is paired. `left` is the class of a socket
    /// that is no longer in its slot.
    pub(super) fn peer_name(&self, left: Option<Class>) -> Peer {
        let client = self.client.socket.map(|socket| socket.class);
        match (&self.state, client.or(left)) {
            (State::Waiting { .. }, Some(Class::Pair(attempt))) => Peer::Attempt(attempt),
            _ => Peer::Session,
        }
    }
}

/// A socket is replaced by one of the same or a higher rank.
pub(super) const fn rank(class: Class) -> u8 {
    match class {
        Class::Pair(_) => 0,
        Class::Session => 1,
    }
}
