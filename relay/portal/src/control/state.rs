//! The agents that have a channel, or are about to: what is known of them, and what ends their channels.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mykube_protocol::agent::Presence as Shown;
use mykube_relay_accounts::{id::AgentId, time::UnixTime, token::TokenRow};
use mykube_relay_bus::{Bus, Presence};
use tokio::sync::oneshot;

/// Channels of one agent that have not said hello: who holds its token can open no more.
const GREETING_MAX: u8 = 4;

/// Why a channel ends that has done nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A newer one of the agent took over.
    Replaced,
    /// Its token was revoked, or has ended; or the agent was removed.
    Token,
    /// The relay stops.
    Restart,
}

type Handle = oneshot::Sender<End>;

/// The agents that have a channel, or are about to.
pub(crate) struct Control {
    bus: Mutex<Bus<Handle>>,
    greeting: Mutex<HashMap<AgentId, u8>>,
}

/// One channel that has not said hello.
pub(crate) struct Greeting {
    control: Arc<Control>,
    agent: AgentId,
}

impl Control {
    pub(crate) fn new(now: Instant) -> Self {
        Self { bus: Mutex::new(Bus::new(now)), greeting: Mutex::default() }
    }

    pub(crate) fn bus(&self) -> MutexGuard<'_, Bus<Handle>> {
        self.bus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn greeting(&self) -> MutexGuard<'_, HashMap<AgentId, u8>> {
        self.greeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent was made: until it comes, it is away.
    pub(crate) fn add(&self, now: Instant, id: AgentId) {
        self.bus().add(now, id);
    }

    /// What is known of an agent, and for how long it has been so.
    pub(crate) fn presence(&self, now: Instant, id: AgentId) -> (Shown, Duration) {
        let (shown, since) = match self.bus().presence(id) {
            Presence::Live(since) => (Shown::Live, since),
            Presence::Away(since) => (Shown::Away, since),
            Presence::Unknown(since) => (Shown::Unknown, since),
        };
        (shown, now.saturating_duration_since(since))
    }

    /// A token's ends have changed: the channel that it has opened ends with it, or at once.
    pub(crate) fn token_changed(&self, (now, instant): (UnixTime, Instant), id: AgentId, row: &TokenRow) {
        let Some(ends_at) = row.ends_at() else { return };
        if ends_at <= now {
            let ended = self.bus().revoke(instant, id, row.generation);
            end(ended, End::Token);
        } else {
            self.bus().set_end(id, row.generation, instant + ends_at.since(now));
        }
    }

    /// An agent was removed.
    pub(crate) fn forget(&self, id: AgentId) {
        let ended = self.bus().forget(id);
        end(ended, End::Token);
    }

    /// Ends the channels whose tokens have.
    pub(crate) fn tick(&self, now: Instant) {
        let ended = self.bus().handle_tick(now);
        end(ended, End::Token);
    }

    /// The relay stops.
    pub(crate) fn drain(&self, now: Instant) {
        let all = self.bus().drain(now);
        end(all, End::Restart);
    }

    /// How many agents are connected.
    #[cfg(test)]
    pub(crate) fn live(&self) -> usize {
        self.bus().live()
    }
}

/// Tells channels that they are over. Who is gone already needs not hear it.
fn end(handles: impl IntoIterator<Item = Handle>, why: End) {
    for handle in handles {
        let _ = handle.send(why);
    }
}

impl Greeting {
    /// Nothing where there are too many.
    pub(crate) fn begin(control: &Arc<Control>, agent: AgentId) -> Option<Self> {
        let mut greeting = control.greeting();
        let count = greeting.entry(agent).or_default();
        if *count >= GREETING_MAX {
            return None;
        }
        *count += 1;
        Some(Self { control: control.clone(), agent })
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        let mut greeting = self.control.greeting();
        if let Some(count) = greeting.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                greeting.remove(&self.agent);
            }
        }
    }
}
