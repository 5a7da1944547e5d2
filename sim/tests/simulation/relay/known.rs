//! What the simulation knows of its relay, to judge by.

use std::time::Duration;

use mykube_protocol::{Role, limits};
use mykube_relay_core::{owner::Owner, registry::Counts};
use mykube_tunnel::Time;

use super::{Effect, Place, Relay, Socket, index};

impl Relay {
    /// What is still to be done, and for whom.
    pub(crate) fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.effects.iter()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.registry.counts()
    }

    /// Whether it knows of a session whose ends are paired. There is one such at the most.
    pub(crate) fn knows_pairing(&self) -> bool {
        let Counts { paired, away, .. } = self.counts();
        assert!(paired + away <= 1, "one code has paired twice");
        paired + away == 1
    }

    /// How many sessions that owner may still make.
    pub(crate) fn room(&self, owner: Owner) -> usize {
        self.books.room(owner, self.counts(), &self.limits)
    }

    /// Whether it has not heard since its start, or since neither end was there, that the two are paired, not even from the
    /// ticket of an end that has one that says so.
    pub(crate) fn is_unaware(&self, has_session_ticket: bool) -> bool {
        !self.aware && (!has_session_ticket || self.unaware.is_some())
    }

    /// How long that end has had no place, if it has none.
    pub(crate) fn absent(&self, at: Time, role: Role) -> Option<Duration> {
        self.place_of(role).is_none().then(|| self.clock(at).saturating_sub(self.left[index(role)]))
    }

    /// How long one end waits for the other.
    pub(crate) fn session_grace(&self) -> Duration {
        self.limits.session_grace
    }

    /// Its clock, if it has said to that socket's end every ticket that was due: it has its place there, and not only just now.
    pub(crate) fn renewed(&self, at: Time, number: u32) -> Option<Duration> {
        let (place, clock) = (&self.sockets.get(&number)?.place, self.clock(at));
        let placed = matches!(place, Place::In { since } if *since < clock);
        (placed && self.knows_pairing()).then_some(clock)
    }

    /// After so long at the least does a ticket expire of an end that had all that were due; but for one look at the clock.
    pub(crate) fn ticket_lasts(&self) -> Duration {
        // Tickets count whole seconds.
        self.limits.ticket_ttl - self.renewal() - Duration::from_secs(1)
    }

    /// How long it is from one ticket to the next.
    pub(crate) fn renewal(&self) -> Duration {
        self.limits.ticket_ttl / limits::SESSION_TICKET_RENEWALS
    }

    /// How often it was started, or so much time passed that nothing counts any more that was asked before.
    pub(crate) fn starts(&self) -> u32 {
        self.starts
    }

    /// All sockets that are open.
    pub(crate) fn sockets(&self) -> Vec<u32> {
        self.sockets.keys().copied().collect()
    }

    /// The socket that has the place of that end.
    pub(crate) fn place_of(&self, role: Role) -> Option<u32> {
        let has = |socket: &Socket| socket.claims.role == role && matches!(socket.place, Place::In { .. });
        self.sockets.iter().find(|(_, socket)| has(socket)).map(|(number, _)| *number)
    }
}
