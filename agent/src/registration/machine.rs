//! When an agent that has a name dials the relay, what it says, and when it stops: no I/O, the time and random numbers are
//! arguments.
//!
//! The driver calls a `handle_*` function for what happened, then takes commands from [`Machine::poll_command`] and events from
//! [`Machine::poll_event`] until there are none, and calls [`Machine::handle_timeout`] at [`Machine::poll_timeout`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use mykube_protocol::{
    close::{TOO_MANY, retry_after},
    control::{FromRelay, NONCE_LEN, PROTOCOL, REPLACED, TOKEN_ENDED, nonce},
    text::printable,
};
use rand::{Rng, RngExt as _};

use crate::backoff::doubled;

#[cfg(test)]
mod tests;

/// The first redial comes after this time, the next ones after twice the time of the one before...
pub const RETRY: Duration = Duration::from_secs(1);
/// ... but no later than this.
pub const RETRY_MAX: Duration = Duration::from_mins(1);
/// A connection that lasted for so long was a good one: the next redial is a first one again.
pub const GOOD: Duration = Duration::from_secs(30);
/// Where another program with this agent's token took over: the first redial, the next ones after twice the time...
pub const REPLACED_RETRY: Duration = Duration::from_mins(1);
/// ... but no later than this. Two programs with one token change places this seldom.
pub const REPLACED_RETRY_MAX: Duration = Duration::from_mins(15);
/// How long the relay may take for its challenge, and for its welcome.
pub const GREETING: Duration = Duration::from_secs(15);
/// The relay pings every 30 seconds: after this time without a word of it the connection is none.
pub const SILENCE: Duration = Duration::from_secs(45);
/// What the relay says of an agent whose clock is wrong; published.
const CLOCK: &str = "timestamp out of range";
/// Longest text of the relay that is shown.
const SHOWN: usize = 200;

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Dial; say how that went.
    Dial,
    /// Answer this challenge.
    Hello([u8; NONCE_LEN]),
    /// Let go of the connection.
    HangUp,
}

/// What the operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The relay knows the agent by its name.
    Live,
    /// It does not, for now: told once, until it does again.
    Lost {
        /// Why.
        why: String,
        /// When it is dialled again.
        again: Duration,
    },
    /// Another program with this agent's token took over. It is asked for again after this time.
    Replaced {
        /// When it is dialled again.
        again: Duration,
    },
    /// The token opens nothing any more: the relay is not asked again.
    TokenRefused,
}

/// Why dialling failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may go better later; in words.
    Other(String),
    /// The relay does not take the token.
    TokenRefused,
}

#[derive(Debug)]
enum State {
    /// The next dial is then.
    Waiting(Instant),
    Dialling,
    /// The relay has to say something until then.
    Greeting {
        until: Instant,
        is_answered: bool,
    },
    /// Since when, and when something was heard last.
    Live {
        since: Instant,
        heard: Instant,
    },
    Over,
}

/// One agent's registration.
pub struct Machine {
    state: State,
    /// Redials that came to nothing, and how often another program took over.
    failures: u32,
    replaced: u32,
    is_told: bool,
    /// What the relay has said before it closed.
    error: Option<String>,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
}

impl Machine {
    /// Dials at once.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Dialling,
            failures: 0,
            replaced: 0,
            is_told: false,
            error: None,
            commands: VecDeque::from([Command::Dial]),
            events: VecDeque::new(),
        }
    }

    /// What is to be done.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// What is to be told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Nothing will ever be done again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// When time by itself changes something.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(until) | State::Greeting { until, .. } => Some(until),
            State::Live { heard, .. } => Some(heard + SILENCE),
            State::Dialling | State::Over => None,
        }
    }

    /// Time passes.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.state {
            State::Waiting(_) => {
                self.state = State::Dialling;
                self.commands.push_back(Command::Dial);
            }
            State::Greeting { .. } => self.lost(now, "the relay does not answer".to_owned(), None, rng),
            State::Live { .. } => self.lost(now, "nothing was heard of the relay".to_owned(), None, rng),
            State::Dialling | State::Over => {}
        }
    }

    /// The socket is open.
    pub fn handle_dialled(&mut self, now: Instant) {
        self.error = None;
        self.state = State::Greeting { until: now + GREETING, is_answered: false };
    }

    /// It is not.
    pub fn handle_dial_failed(&mut self, now: Instant, failure: Failure, rng: &mut impl Rng) {
        match failure {
            Failure::Other(why) => self.lost(now, why, None, rng),
            Failure::TokenRefused => self.refused(),
        }
    }

    /// Something came, a ping for example.
    pub fn handle_heard(&mut self, now: Instant) {
        if let State::Live { heard, .. } = &mut self.state {
            *heard = now;
        }
    }

    /// A text came.
    pub fn handle_text(&mut self, now: Instant, text: &str, rng: &mut impl Rng) {
        self.handle_heard(now);
        let Ok(FromRelay { challenge, welcome, error }) = serde_json::from_str(text) else { return };
        if let Some(error) = error {
            self.error = Some(printable(&error.message, SHOWN));
            return;
        }
        let State::Greeting { is_answered, .. } = &mut self.state else { return };
        match (challenge, welcome) {
            (Some(challenge), _) if !*is_answered => match nonce(&challenge.nonce) {
                Some(nonce) => {
                    *is_answered = true;
                    self.commands.push_back(Command::Hello(nonce));
                }
                None => self.lost(now, "the relay's challenge is none".to_owned(), None, rng),
            },
            (_, Some(welcome)) if *is_answered => {
                if welcome.protocol < PROTOCOL {
                    let why = format!("the relay speaks protocol {}, and {PROTOCOL} is needed", welcome.protocol);
                    return self.lost(now, why, None, rng);
                }
                self.state = State::Live { since: now, heard: now };
                self.is_told = false;
                self.events.push_back(Event::Live);
            }
            _ => {}
        }
    }

    /// The connection is over: closed with a code and a reason, or broken, which is said in words.
    pub fn handle_closed(&mut self, now: Instant, code: Option<u16>, reason: &str, rng: &mut impl Rng) {
        if !matches!(self.state, State::Greeting { .. } | State::Live { .. }) {
            return;
        }
        let why = self.error.take().unwrap_or_else(|| printable(reason, SHOWN));
        if why == CLOCK {
            let why = "this machine's clock is more than 30 seconds off the relay's: set it".to_owned();
            return self.lost(now, why, None, rng);
        }
        let why = why.split_once("; ").filter(|_| retry_after(&why).is_some()).map_or(why.as_str(), |(_, text)| text);
        match code {
            Some(TOKEN_ENDED) => self.refused(),
            Some(REPLACED) => self.replaced(now, rng),
            Some(TOO_MANY) => {
                let least = retry_after(reason);
                self.lost(now, format!("the relay: {why}"), least, rng);
            }
            Some(_) => self.lost(now, format!("the relay: {why}"), retry_after(reason), rng),
            None => self.lost(now, why.to_owned(), None, rng),
        }
    }

    fn refused(&mut self) {
        self.let_go();
        self.state = State::Over;
        self.events.push_back(Event::TokenRefused);
    }

    fn replaced(&mut self, now: Instant, rng: &mut impl Rng) {
        if matches!(self.state, State::Live { since, .. } if now.saturating_duration_since(since) >= REPLACED_RETRY_MAX)
        {
            self.replaced = 0;
        }
        let again = spread(doubled(REPLACED_RETRY, self.replaced, REPLACED_RETRY_MAX), rng);
        self.replaced += 1;
        self.let_go();
        self.state = State::Waiting(now + again);
        self.is_told = true;
        self.events.push_back(Event::Replaced { again });
    }

    fn lost(&mut self, now: Instant, why: String, least: Option<Duration>, rng: &mut impl Rng) {
        if matches!(self.state, State::Live { since, .. } if now.saturating_duration_since(since) >= GOOD) {
            self.failures = 0;
        }
        let again = spread(doubled(RETRY, self.failures, RETRY_MAX), rng).max(least.unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        self.let_go();
        self.state = State::Waiting(now + again);
        if !self.is_told {
            self.is_told = true;
            self.events.push_back(Event::Lost { why, again });
        }
    }

    fn let_go(&mut self) {
        self.commands.retain(|command| *command == Command::HangUp);
        if matches!(self.state, State::Greeting { .. } | State::Live { .. }) {
            self.commands.push_back(Command::HangUp);
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

/// Between half of it and all of it: many agents that lose one relay do not come back at once.
fn spread(time: Duration, rng: &mut impl Rng) -> Duration {
    rng.random_range(time / 2..=time)
}
