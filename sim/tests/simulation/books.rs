//! Whom the relay charges which session to, counted apart from its own books.

use std::time::Duration;

use mykube_relay_core::{
    owner::Owner,
    registry::{Counts, Limits},
};

/// A code whose agent never comes is over after this.
const AGENT_GRACE: Duration = Duration::from_secs(30);

pub(crate) struct Books {
    /// Who is charged for the session of the two ends, where the relay knows that.
    owner: Owner,
    /// Codes whose agents never come: their owners, and when each is over.
    idle: Vec<(Owner, Duration)>,
}

impl Books {
    pub(crate) fn new(owner: Owner) -> Self {
        Self { owner, idle: Vec::new() }
    }

    pub(crate) fn create_idle(&mut self, clock: Duration, owner: Owner) {
        self.idle.push((owner, clock + AGENT_GRACE));
    }

    pub(crate) fn tick(&mut self, clock: Duration) {
        self.idle.retain(|(_, until)| *until > clock);
    }

    pub(crate) fn restart(&mut self) {
        self.idle.clear();
    }

    /// The session was made again for the end that came first.
    pub(crate) fn readmit(&mut self, owner: Owner) {
        self.owner = owner;
    }

    /// The agent of a paired session came: it is charged, if it has room, and an organisation stays charged.
    pub(crate) fn charge(&mut self, owner: Owner, limits: &Limits) {
        let stays = matches!((self.owner, owner), (Owner::Organisation(_), Owner::Address(_)));
        if !stays && self.idle_of(owner) < limits.sessions_per_address {
            self.owner = owner;
        }
    }

    fn idle_of(&self, owner: Owner) -> usize {
        self.idle.iter().filter(|(of, _)| *of == owner).count()
    }

    /// How many sessions that owner may still make.
    pub(crate) fn room(&self, owner: Owner, counts: Counts, limits: &Limits) -> usize {
        let Counts { waiting, paired, away, .. } = counts;
        let own = waiting + paired + away - self.idle.len();
        assert!(own <= 1, "one session of the two ends: {counts:?}");
        let own = if self.owner == owner { own } else { 0 };
        let own_waits = if paired + away == 0 { own } else { 0 };
        let idle = self.idle_of(owner);
        (limits.sessions_per_address - idle - own).min(limits.waiting_per_address.saturating_sub(idle + own_waits))
    }
}
