//! Who is connected, in memory: nothing of it is stored, so nothing of it is stale. A state machine without I/O: the time is
//! an argument, and so is the handle by which a connection is reached.
//!
//! - [`Bus::register`]: an agent's newest connection takes the place of the one before it, which is handed back to be closed.
//!   Two programs that show one token would do that to each other for ever: each time it happens anew, the one that is there
//!   is left alone for longer ([`HOLD_MIN`] doubling to [`HOLD_MAX`]).
//! - [`Bus::leave`]: a connection is over. It says its own [`Generation`]: one that was replaced long ago takes nothing from
//!   its successor.
//! - [`Bus::set_end`], [`Bus::revoke`], [`Bus::forget`], [`Bus::handle_tick`]: what ends a connection from outside; its handle
//!   is handed back.
//! - [`Bus::presence`]: what can be said of an agent, and since when. What the relay has not seen since it started, it does
//!   not know.

#![warn(clippy::pedantic)]

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    num::NonZeroU64,
    time::{Duration, Instant},
};

use mykube_relay_accounts::id::AgentId;

#[cfg(test)]
mod tests;

/// How long a connection that took another's place is left alone, at first: more than an agent takes to come back over a
/// network that it has lost.
pub const HOLD_MIN: Duration = Duration::from_secs(1);
/// And at most: two programs with one token change places once a minute, and an agent whose network is gone waits no longer.
pub const HOLD_MAX: Duration = Duration::from_mins(1);
/// After this time without another change of places it begins anew.
const HOLD_FORGOTTEN: Duration = Duration::from_mins(5);

/// One connection among all that ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

/// What is known of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is connected since then.
    Live(Instant),
    /// It is not, since then.
    Away(Instant),
    /// It has not been seen since the relay started, which was then.
    Unknown(Instant),
}

/// A connection that is not taken: the agent's other one took its place from a third a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldOff(
    /// How long it is left alone.
    pub Duration,
);

/// Who is connected. `H` reaches a connection; dropped or handed back, it is this bus's no more.
pub struct Bus<H> {
    started: Instant,
    last: Generation,
    agents: HashMap<AgentId, Agent<H>>,
    /// When connections end by themselves, the next first. Each stands in its connection too, and goes with it.
    ends: BTreeSet<(u64, AgentId)>,
    live: usize,
}

/// A hundred thousand of these are idle: each byte counts. Times are milliseconds from the start.
struct Agent<H> {
    since: u64,
    held_until: u64,
    /// How long the last one was held, as a power of two of [`HOLD_MIN`].
    held: u8,
    connection: Option<Connection<H>>,
}

struct Connection<H> {
    generation: Generation,
    /// Of the token that opened it.
    token: u32,
    ends_at: Option<NonZeroU64>,
    handle: H,
}

impl<H> Bus<H> {
    /// Nobody is known.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { started: now, last: Generation(0), agents: HashMap::new(), ends: BTreeSet::new(), live: 0 }
    }

    /// How many are connected.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live
    }

    /// An agent was made: it is away, and was never there.
    pub fn add(&mut self, now: Instant, id: AgentId) {
        let since = self.millis(now);
        self.agents.entry(id).or_insert(Agent { since, held_until: 0, held: 0, connection: None });
    }

    /// A connection of an agent, opened with its token of this number. Gives the one that it replaces, to be closed.
    ///
    /// # Errors
    /// The one that is there is left alone for a while.
    pub fn register(
        &mut self,
        now: Instant,
        id: AgentId,
        token: u32,
        handle: H,
    ) -> Result<(Generation, Option<H>), HeldOff> {
        let millis = self.millis(now);
        let generation = Generation(self.last.0 + 1);
        let connection = Connection { generation, token, ends_at: None, handle };
        let before = match self.agents.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(Agent { since: millis, held_until: 0, held: 0, connection: Some(connection) });
                None
            }
            Entry::Occupied(mut entry) => {
                let agent = entry.get_mut();
                if agent.connection.is_some() {
                    agent.hold(millis)?;
                }
                agent.since = millis;
                agent.connection.replace(connection)
            }
        };
        self.last = generation;
        self.live += 1;
        Ok((generation, before.map(|before| self.let_go(id, before))))
    }

    /// A connection is over. Says whether it was the agent's, and not one that was replaced.
    pub fn leave(&mut self, now: Instant, id: AgentId, generation: Generation) -> bool {
        self.end(now, id, |connection| connection.generation == generation).is_some()
    }

    /// The agent's connection with its token of this number ends then, where it has one: the token does.
    pub fn set_end(&mut self, id: AgentId, token: u32, at: Instant) {
        // Never before the millisecond is over, and never zero.
        let at = NonZeroU64::MIN.saturating_add(self.millis(at));
        let connection = self.agents.get_mut(&id).and_then(|agent| agent.connection.as_mut());
        let Some(connection) = connection.filter(|connection| connection.token == token) else { return };
        if let Some(before) = connection.ends_at.replace(at) {
            self.ends.remove(&(before.get(), id));
        }
        self.ends.insert((at.get(), id));
    }

    /// A token is good for nothing more: the agent's connection, if it has opened that, is over.
    #[must_use]
    pub fn revoke(&mut self, now: Instant, id: AgentId, token: u32) -> Option<H> {
        self.end(now, id, |connection| connection.token == token)
    }

    /// There is no such agent any more.
    #[must_use]
    pub fn forget(&mut self, id: AgentId) -> Option<H> {
        let connection = self.agents.remove(&id)?.connection?;
        Some(self.let_go(id, connection))
    }

    /// When [`Self::handle_tick`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| self.at(*at))
    }

    /// Time passes: connections whose tokens have ended are handed back.
    #[must_use]
    pub fn handle_tick(&mut self, now: Instant) -> Vec<H> {
        let mut ended = Vec::new();
        while let Some((_, id)) = self.ends.first().copied().filter(|(at, _)| self.at(*at) <= now) {
            self.ends.pop_first();
            ended.extend(self.end(now, id, |_| true));
        }
        ended
    }

    /// The relay stops: every connection is handed back.
    #[must_use]
    pub fn drain(&mut self, now: Instant) -> Vec<H> {
        let millis = self.millis(now);
        let mut all = Vec::with_capacity(self.live);
        for agent in self.agents.values_mut().filter(|agent| agent.connection.is_some()) {
            agent.since = millis;
            all.extend(agent.connection.take().map(|connection| connection.handle));
        }
        self.live = 0;
        self.ends.clear();
        all
    }

    /// What is known of an agent that there is.
    #[must_use]
    pub fn presence(&self, id: AgentId) -> Presence {
        match self.agents.get(&id) {
            None => Presence::Unknown(self.started),
            Some(Agent { since, connection: Some(_), .. }) => Presence::Live(self.at(*since)),
            Some(Agent { since, .. }) => Presence::Away(self.at(*since)),
        }
    }

    /// The agent's connection is over, if it is this one.
    fn end(&mut self, now: Instant, id: AgentId, is_it: impl Fn(&Connection<H>) -> bool) -> Option<H> {
        let millis = self.millis(now);
        let agent = self.agents.get_mut(&id)?;
        let connection = agent.connection.take_if(|connection| is_it(connection))?;
        agent.since = millis;
        Some(self.let_go(id, connection))
    }

    fn let_go(&mut self, id: AgentId, connection: Connection<H>) -> H {
        self.live -= 1;
        if let Some(at) = connection.ends_at {
            self.ends.remove(&(at.get(), id));
        }
        connection.handle
    }

    fn at(&self, millis: u64) -> Instant {
        self.started + Duration::from_millis(millis)
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

impl<H> Agent<H> {
    /// One connection takes another's place, unless that did the same a moment ago.
    fn hold(&mut self, millis: u64) -> Result<(), HeldOff> {
        let length = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let left = self.held_until.saturating_sub(millis);
        if left > 0 {
            return Err(HeldOff(Duration::from_millis(left)));
        }
        let is_new = self.held == 0 || millis - self.held_until > length(HOLD_FORGOTTEN);
        self.held = if is_new { 1 } else { (self.held + 1).min(7) };
        let hold = length(HOLD_MIN) << (self.held - 1);
        self.held_until = millis.saturating_add(hold.min(length(HOLD_MAX)));
        Ok(())
    }
}
