//! A whole end: a session, the connection to the relay that carries it, and what is done when that is lost.
//!
//! Everything an end decides is decided here: the relay's texts and the answers to them, pings to the relay, attaches, whether
//! a connection still lives after a suspend or a change of the network, when to dial and when not at all, what a close code
//! means, how long the session waits, and what a person is told. A driver only moves bytes. The order of calls is the crate's:
//!
//! 1. `handle_*` with whatever happened, to the connection it happened to: what comes late of one that is gone is dropped;
//! 2. [`Endpoint::poll_event`] and [`Endpoint::poll_order`] until nothing comes;
//! 3. while the connection takes more: [`Endpoint::poll_text`], [`Endpoint::poll_transmit`], [`Endpoint::poll_ping`], and then
//!    [`Endpoint::is_closing`]; in between [`Endpoint::handle_blocked`] tells that it takes nothing;
//! 4. wait for bytes, for a dial, for the network to change, for the application, or for [`Endpoint::poll_timeout`].
//!
//! The application's calls (`open`, `write`, `read` and so on) go to [`Endpoint::session_mut`]; 2 and 3 follow them too.

mod backoff;
mod course;
mod dials;
mod line;
mod pairing;
#[cfg(test)]
mod tests;
mod types;

pub use pairing::{Next, PairingReconnect};
pub use types::{ConnectionId, DialFailure, End, Event, Lost, Order, PeerStatus, Settings};

use std::{collections::VecDeque, time::Duration};

use bytes::BytesMut;
use mykube_protocol::{Attempt, FromAgent, FromRelay, Role, Ticket, frame, relay_text::Peer};
use rand_core::CryptoRng;

use crate::{
    handshake::Established,
    session::{Config, Session, SessionError},
    time::Time,
};
use dials::Dials;
use line::{Connection, Line};

/// How long a farewell may take to be heard, and after it the connection's orderly end.
pub const BYE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the clock is looked at, and how late that must be to mean a suspend (or a stop). A driver whose timers stand
/// still during suspend also waits for nothing longer than this.
const TICK: Duration = Duration::from_secs(2);
const JUMP: Duration = Duration::from_secs(3);
/// After a write has failed, how long to wait for the relay's close frame.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[derive(Debug)]
enum Phase {
    Open,
    /// The connection is being closed, no longer than until then.
    Closing(End, Time),
    Over,
}

/// One end of a paired session.
#[derive(Debug)]
pub struct Endpoint {
    session: Session,
    attempt: Attempt,
    /// The newest ticket the relay has given.
    ticket: Ticket,
    window: Duration,
    status: PeerStatus,
    line: Line,
    dials: Dials,
    /// Texts that wait to be sent to the relay.
    texts: Vec<FromAgent>,
    phase: Phase,
    /// How the channel ended, as the application was told, and when.
    told: Option<(End, Time)>,
    /// After its farewell this end waits until then for the peer to hear it.
    leaves: Option<Time>,
    tick: Time,
    events: VecDeque<Event>,
    orders: VecDeque<Order>,
}

impl Endpoint {
    /// An end that has paired over [`ConnectionId::FIRST`].
    #[must_use]
    pub fn new(now: Time, established: Established, config: Config, settings: Settings) -> Self {
        let Settings { attempt, ticket, window, unsure } = settings;
        Self {
            session: Session::new(now, established, config),
            attempt,
            ticket,
            window,
            status: PeerStatus::Up,
            line: Line::Up(Connection::new(now, ConnectionId::FIRST)),
            dials: Dials::after(unsure),
            texts: Vec::new(),
            phase: Phase::Open,
            told: None,
            leaves: None,
            tick: now + TICK,
            events: VecDeque::new(),
            orders: VecDeque::new(),
        }
    }

    /// The session, for what may be asked of it.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The session, for the application: its streams, its welcome, its farewell. What carries it is the endpoint's alone.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The ticket to dial with.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Whether the two ends hear each other.
    #[must_use]
    pub fn status(&self) -> &PeerStatus {
        &self.status
    }

    /// How the channel ended, once it has.
    #[must_use]
    pub fn ended(&self) -> Option<&End> {
        self.told.as_ref().map(|(end, _)| end)
    }

    /// Ends the session in this end's own words, and waits no longer than [`BYE_TIMEOUT`] until they are heard.
    pub fn leave(&mut self, now: Time, reason: &str) {
        self.session.bye(reason);
        if self.told.is_none() {
            self.leaves.get_or_insert(now + BYE_TIMEOUT);
        }
    }

    /// A binary frame arrived.
    pub fn handle_frame(&mut self, now: Time, id: ConnectionId, frame: impl AsRef<[u8]>, rng: &mut impl CryptoRng) {
        if self.open_connection(id).is_none() {
            return;
        }
        let frame = frame.as_ref();
        let handled = match frame.first() {
            Some(&(frame::ATTACH_CLIENT | frame::ATTACH_AGENT)) => {
                self.session.handle_attach(now, frame, rng);
                Ok(())
            }
            _ => self.session.handle_frame(now, frame),
        };
        match handled {
            Ok(()) => {}
            Err(error @ SessionError::Record(_)) => self.lost(now, Lost::broken(error), rng),
            Err(error) => self.close(now, End::Session(error)),
        }
        self.follow(now);
    }

    /// A text of the relay arrived.
    pub fn handle_text(&mut self, now: Time, id: ConnectionId, text: FromRelay, rng: &mut impl CryptoRng) {
        self.handle_heard(now, id);
        if self.open_connection(id).is_none() {
            return;
        }
        match text {
            FromRelay::PeerHere(Peer::Session) => self.here(now, rng),
            // The relay has not heard, or not kept, that this attempt was paired.
            FromRelay::PeerHere(Peer::Attempt(attempt)) if attempt == self.attempt => {
                if self.session.role() == Role::Agent {
                    self.say(FromAgent::Paired(attempt));
                }
                self.here(now, rng);
            }
            FromRelay::PeerHere(Peer::Attempt(other)) if self.session.role() == Role::Agent => {
                self.say(FromAgent::Refused(other));
            }
            FromRelay::PeerGone(Peer::Session) => {
                self.detach(now, "the other end lost its connection to the relay".into());
            }
            FromRelay::Ticket(ticket) => self.ticket = ticket,
            FromRelay::PeerHere(_) | FromRelay::PeerGone(_) => {}
        }
        self.follow(now);
    }

    /// The relay said something of its own: a text, also one that means nothing here, a ping, a pong.
    pub fn handle_heard(&mut self, now: Time, id: ConnectionId) {
        if let Some(connection) = self.open_connection(id) {
            connection.heard = now;
        }
    }

    /// A connection takes no bytes at the moment, or takes them again.
    pub fn handle_blocked(&mut self, id: ConnectionId, blocked: bool) {
        if let Some(connection) = self.open_connection(id) {
            connection.blocked = blocked;
        }
    }

    /// Nothing more comes from a connection.
    pub fn handle_lost(&mut self, now: Time, id: ConnectionId, lost: Lost, rng: &mut impl CryptoRng) {
        if self.open_connection(id).is_some() {
            self.lost(now, lost, rng);
        } else {
            self.handle_closed(now, id);
        }
        self.follow(now);
    }

    /// A write to a connection has failed. What can still be read of it may say why, if that comes soon.
    pub fn handle_write_failed(&mut self, now: Time, id: ConnectionId, lost: Lost) {
        let Some(connection) = self.open_connection(id) else { return self.handle_closed(now, id) };
        connection.on_trial = false;
        connection.failed.get_or_insert((lost, now + LAST_WORDS));
        self.dials.give_up(now, &mut self.orders);
    }

    /// A connection that [was to be closed](Endpoint::is_closing) is.
    pub fn handle_closed(&mut self, now: Time, id: ConnectionId) {
        if let (Phase::Closing(end, _), Line::Up(connection)) = (&self.phase, &self.line)
            && connection.id == id
        {
            self.finish(now, end.clone());
        }
    }

    /// A dial has led to a connection. `routed`: whether the system would still send its packets from where it was opened.
    /// Whether it is wanted; if not, it is dropped.
    #[must_use]
    pub fn handle_connected(&mut self, now: Time, id: ConnectionId, routed: bool) -> bool {
        if !matches!(self.phase, Phase::Open) || !self.dials.stands(now, id, &mut self.orders) {
            return false;
        }
        let reason = match std::mem::replace(&mut self.line, Line::Up(Connection::new(now, id))) {
            Line::Up(old) => {
                self.orders.push_back(Order::LetGo(old.id));
                "the network changed"
            }
            Line::Down { .. } => "waiting for the other end",
        };
        self.detach(now, reason.into());
        self.tick = now + TICK;
        // A change that had to wait may be this connection's. Without one nothing is concluded: where routes depend on more
        // than the address, none is ever found to be routed.
        if self.dials.take_change().is_some() {
            self.handle_network_changed(now, routed);
        }
        true
    }

    /// The driver has stopped in the middle of its work (a panic), and will not be back.
    pub fn handle_stopped(&mut self, now: Time) {
        self.finish(now, End::Lost(Lost::broken("the driver stopped")));
    }

    /// A dial has failed.
    pub fn handle_dial_failed(&mut self, now: Time, id: ConnectionId, failure: DialFailure, rng: &mut impl CryptoRng) {
        if !self.dials.failed(now, id) {
            return;
        }
        match failure {
            DialFailure::Unreachable => {}
            DialFailure::Answered(words) => self.because(words),
            DialFailure::TicketRefused(words) => return self.close(now, End::Refused(words)),
        }
        if self.dials.is_empty() {
            let changed = self.dials.take_change();
            match &mut self.line {
                Line::Down { backoff, due } if changed.is_none() => *due = Some(now + backoff.next(now, rng)),
                Line::Down { .. } => {}
                Line::Up(connection) => {
                    connection.on_trial = false;
                    self.tick = now + TICK;
                }
            }
            if let Some(routed) = changed {
                self.handle_network_changed(now, routed);
            }
        }
    }

    /// This machine's devices, addresses or routes have changed. `routed`: whether the system would still send the
    /// connection's packets from where it was opened.
    pub fn handle_network_changed(&mut self, now: Time, routed: bool) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if !self.dials.is_empty() {
            if self.dials.changes(now, routed) {
                self.dial_beside(now);
            }
            return;
        }
        match &mut self.line {
            // Once it is lost, the next dial does not wait.
            Line::Up(connection) if connection.failed.is_some() => self.dials.keep_change(routed),
            Line::Up(connection) => {
                let was = std::mem::replace(&mut connection.routed, routed);
                // A route that comes back counts: TCP's next try may be seconds away.
                if !(was && routed) {
                    self.check(now);
                }
            }
            Line::Down { backoff, due } => {
                backoff.hurry(now);
                *due = None;
                self.orders.push_back(self.dials.begin(now));
            }
        }
    }

    /// A timer ran out. Much later than it should have: this machine was suspended, or this process stopped.
    pub fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        if now >= self.tick {
            let jumped = now >= self.tick + JUMP;
            self.tick = now + TICK;
            if jumped && self.dials.is_empty() {
                self.check(now);
            }
        }
        self.end_in_time(now);
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        if self.dials.due().is_some_and(|due| due <= now) {
            self.dial_beside(now);
        }
        match &mut self.line {
            Line::Down { due, .. } if due.is_some_and(|due| due <= now) => {
                *due = None;
                self.orders.push_back(self.dials.begin(now));
            }
            Line::Down { .. } => {}
            Line::Up(Connection { failed: Some((lost, by)), .. }) => {
                if *by <= now {
                    let lost = lost.clone();
                    self.lost(now, lost, rng);
                }
            }
            Line::Up(connection) if connection.blocked => {}
            Line::Up(connection) => {
                let id = connection.id;
                let attached = self.session.is_attached();
                self.session.handle_timeout(now);
                self.session.ask_again(now, rng);
                if attached && !self.session.is_attached() {
                    self.lost(now, Lost::broken("the other end does not answer"), rng);
                } else if !self.session.is_attached() {
                    self.ask_relay(now, id);
                }
            }
        }
        self.follow(now);
    }

    /// When [`Endpoint::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let mut due = self.tick;
        let mut by = |at: Option<Time>| due = at.map_or(due, |at| due.min(at));
        by(self.leaves);
        by(self.told.as_ref().map(|(_, at)| *at + BYE_TIMEOUT));
        match &self.phase {
            Phase::Open => by(self.window_due()),
            Phase::Closing(_, until) => {
                by(Some(*until));
                return Some(due);
            }
            Phase::Over => return None,
        }
        by(self.dials.due());
        match &self.line {
            Line::Down { due, .. } => by(*due),
            Line::Up(Connection { failed: Some((_, until)), .. }) => by(Some(*until)),
            Line::Up(connection) if connection.blocked => {}
            Line::Up(connection) => {
                by(self.session.poll_timeout());
                // An attached session looks after its connection itself.
                if !self.session.is_attached() {
                    by(Some(connection.relay_due()));
                }
            }
        }
        Some(due)
    }

    /// What happened, for the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.session.poll_event().map(Event::Session).or_else(|| self.events.pop_front())
    }

    /// What the driver is to do.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// Whether [`Endpoint::poll_order`] would give something.
    #[must_use]
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Whether a connection that takes more has something to do.
    #[must_use]
    pub fn wants_transmit(&self, now: Time) -> bool {
        match (&self.phase, &self.line) {
            (Phase::Open, Line::Up(connection)) if connection.failed.is_none() => {
                !self.texts.is_empty()
                    || connection.ping
                    || self.told.is_some()
                    || self.session.is_over()
                    || self.session.wants_transmit(now)
            }
            (Phase::Closing(..), _) => true,
            _ => false,
        }
    }

    /// What to tell the relay, before any frames.
    pub fn poll_text(&mut self, id: ConnectionId) -> Option<FromAgent> {
        let writes = self.open_connection(id).is_some_and(|connection| connection.failed.is_none());
        (writes && !self.texts.is_empty()).then(|| self.texts.remove(0))
    }

    /// The next frame for the other end, if there is anything to say. To be called after [`Endpoint::handle_timeout`] with the
    /// same `now`, and once the texts are out. Where nothing is left to say it may be over: see [`Endpoint::is_closing`].
    pub fn poll_transmit(&mut self, now: Time, id: ConnectionId) -> Option<BytesMut> {
        let connection = self.open_connection(id)?;
        if connection.failed.is_some() {
            return None;
        }
        let says_more = connection.ping || !self.texts.is_empty();
        match self.session.poll_transmit(now) {
            Ok(Some(frame)) => return Some(frame),
            Ok(None) if says_more => {}
            Ok(None) => {
                if let Some((end, _)) = &self.told {
                    self.close(now, end.clone());
                } else if self.session.is_over() {
                    self.close(now, End::Here);
                }
            }
            Err(error) => self.close(now, End::Session(error)),
        }
        None
    }

    /// Whether the relay is to be pinged.
    pub fn poll_ping(&mut self, id: ConnectionId) -> bool {
        self.open_connection(id).is_some_and(|connection| std::mem::take(&mut connection.ping))
    }

    /// Whether that connection is to be closed in an orderly way, after what was sent on it.
    #[must_use]
    pub fn is_closing(&self, id: ConnectionId) -> bool {
        matches!((&self.phase, &self.line), (Phase::Closing(..), Line::Up(connection)) if connection.id == id)
    }

    /// Whether that connection carries the session.
    #[must_use]
    pub fn is_carried_by(&self, id: ConnectionId) -> bool {
        !matches!(self.phase, Phase::Over) && matches!(&self.line, Line::Up(connection) if connection.id == id)
    }
}
