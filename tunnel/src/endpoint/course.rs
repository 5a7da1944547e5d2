//! The consequences of events: what the application is told, what the driver is ordered to do, and how the channel ends.

use mykube_protocol::{
    FromAgent,
    close::{Stage, Verdict, verdict},
};
use rand_core::CryptoRng;

use super::{
    BYE_TIMEOUT, Endpoint, Phase, TICK,
    backoff::Backoff,
    line::{Connection, Line},
    types::{ConnectionId, End, Event, Lost, Order, PeerStatus},
};
use crate::time::Time;

/// Texts for the relay that may wait.
pub(super) const TEXTS_MAX: usize = 16;

impl Endpoint {
    /// The connection with that number, while it carries the session.
    pub(super) fn open_connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        match (&self.phase, &mut self.line) {
            (Phase::Open, Line::Up(connection)) if connection.id == id => Some(connection),
            _ => None,
        }
    }

    /// A relay that asks and never reads the answers fills no memory: each text waits once, and no more than a few do.
    pub(super) fn say(&mut self, text: FromAgent) {
        if self.texts.len() < TEXTS_MAX && !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }

    pub(super) fn here(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.detach(now, "the other end came back over another connection".into());
        self.session.handle_peer_here(now, rng);
    }

    /// The ends do not hear each other until an attach stands.
    pub(super) fn detach(&mut self, now: Time, reason: String) {
        self.session.handle_transport_lost(now);
        if self.status.is_up() {
            self.status = PeerStatus::Away { since: now, reason };
            self.events.push_back(Event::Status(self.status.clone()));
        } else {
            self.because(reason);
        }
    }

    /// Another reason why the ends do not hear each other.
    pub(super) fn because(&mut self, words: String) {
        if let PeerStatus::Away { reason, .. } = &mut self.status
            && *reason != words
        {
            *reason = words;
            self.events.push_back(Event::Status(self.status.clone()));
        }
    }

    /// What follows from what the session has just heard.
    pub(super) fn follow(&mut self, now: Time) {
        if let Some(end @ End::Bye(_)) = self.end_by_farewell() {
            self.tell(now, end);
        }
        if self.session.is_over() && self.told.is_none() {
            // A connection that takes nothing never gets to its close: this bounds it, as the window is no longer asked.
            self.leaves.get_or_insert(now + BYE_TIMEOUT);
        }
        let attached = self.session.is_attached();
        if attached != self.status.is_up() {
            if attached {
                self.status = PeerStatus::Up;
                self.events.push_back(Event::Status(PeerStatus::Up));
                if let Line::Up(connection) = &mut self.line {
                    connection.asked = None;
                }
            } else {
                self.detach(now, "the other end came back over another connection".into());
            }
        }
        if let Line::Up(connection) = &mut self.line
            && connection.on_trial
            && !self.session.is_probing()
        {
            connection.on_trial = false;
            self.dials.give_up(now, &mut self.orders);
            self.tick = now + TICK;
            if let Some(routed) = self.dials.take_change() {
                self.handle_network_changed(now, routed);
            }
        }
    }

    /// The connection must show life, and another one is dialled beside it. One that carries no attached session has nothing
    /// to show: it is replaced.
    pub(super) fn check(&mut self, now: Time) {
        if let (Phase::Open, Line::Up(connection)) = (&self.phase, &mut self.line)
            && connection.failed.is_none()
            && !self.window.is_zero()
        {
            self.session.probe(now);
            connection.on_trial = self.session.is_attached();
            self.orders.push_back(self.dials.begin(now));
        }
    }

    pub(super) fn dial_beside(&mut self, now: Time) {
        if let Line::Down { backoff, .. } = &mut self.line {
            backoff.hurry(now);
        }
        self.dials.beside(now, &mut self.orders);
    }

    /// Asks the relay whether it is there, or finds that it is not.
    pub(super) fn ask_relay(&mut self, now: Time, id: ConnectionId) {
        let Some(connection) = self.open_connection(id).filter(|connection| connection.relay_due() <= now) else {
            return;
        };
        if connection.asked.is_some_and(|at| at > connection.heard) {
            self.handle_write_failed(now, id, Lost::broken("the relay does not answer"));
        } else {
            connection.asked = Some(now);
            connection.ping = true;
        }
    }

    /// The connection is gone: the session goes on over another, or is over.
    pub(super) fn lost(&mut self, now: Time, lost: Lost, rng: &mut impl CryptoRng) {
        self.dials.give_up(now, &mut self.orders);
        if let Some(end) = self.end_by_farewell() {
            return self.finish(now, end);
        }
        let is_over = self.window.is_zero()
            || match verdict(lost.code(), Stage::Session) {
                Verdict::Replaced => !self.dials.explain(now),
                verdict => verdict.is_final(),
            };
        if is_over {
            return self.finish(now, End::Lost(lost));
        }
        let mut backoff = Backoff::new(now);
        let delay = lost.asked_delay().unwrap_or_else(|| backoff.next(now, rng));
        if let Line::Up(old) = std::mem::replace(&mut self.line, Line::Down { backoff, due: Some(now + delay) }) {
            self.orders.push_back(Order::LetGo(old.id));
        }
        self.events.push_back(Event::Waits(lost.clone()));
        self.detach(now, lost.to_string());
        // A change of the network before the loss may be its cause: the next dial does not wait.
        if let Some(routed) = self.dials.take_change() {
            self.handle_network_changed(now, routed);
        }
    }

    pub(super) fn window_due(&self) -> Option<Time> {
        match &self.status {
            PeerStatus::Up => None,
            // An end whose farewell was heard waits for nobody: it only closes its connection, by `leaves` at the latest.
            PeerStatus::Away { .. } if self.session.is_over() => None,
            PeerStatus::Away { since, .. } => Some(*since + self.window),
        }
    }

    /// Ends a farewell, a close or an absence that has lasted for as long as it may.
    pub(super) fn end_in_time(&mut self, now: Time) {
        if self.leaves.is_some_and(|at| at <= now) {
            self.tell(now, End::Here);
        }
        match (&self.phase, &self.told) {
            (Phase::Over, _) => {}
            // A stuck connection is not waited for longer.
            (_, Some((end, at))) if *at + BYE_TIMEOUT <= now => self.finish(now, end.clone()),
            (Phase::Closing(end, by), _) if *by <= now => self.finish(now, end.clone()),
            (Phase::Open, _) if self.window_due().is_some_and(|due| due <= now) => {
                if let PeerStatus::Away { reason, .. } = &self.status {
                    self.finish(now, End::Window { reason: reason.clone(), window: self.window });
                }
            }
            _ => {}
        }
    }

    /// How the channel ends where one end has heard the other's farewell, whatever happens after that.
    pub(super) fn end_by_farewell(&self) -> Option<End> {
        let heard = self.session.heard_bye().map(|reason| End::Bye(reason.to_owned()));
        heard.or_else(|| self.session.is_over().then_some(End::Here))
    }

    /// The channel is over; its connection, if it has one, still ends in an orderly way.
    pub(super) fn close(&mut self, now: Time, end: End) {
        let end = self.end_by_farewell().unwrap_or(end);
        match &self.line {
            Line::Up(connection) if connection.failed.is_none() => {
                self.dials.give_up(now, &mut self.orders);
                self.phase = Phase::Closing(end, now + BYE_TIMEOUT);
            }
            _ => self.finish(now, end),
        }
    }

    /// Everything is over.
    pub(super) fn finish(&mut self, now: Time, end: End) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.phase = Phase::Over;
        self.dials.give_up(now, &mut self.orders);
        if let Line::Up(connection) = &self.line {
            self.orders.push_back(Order::LetGo(connection.id));
        }
        self.orders.push_back(Order::Over);
        self.tell(now, end);
    }

    pub(super) fn tell(&mut self, now: Time, end: End) {
        self.leaves = None;
        if self.told.is_none() {
            self.told = Some((end.clone(), now));
            self.events.push_back(Event::Ended(end));
        }
    }
}
