//! The ends' drivers: they dial, carry frames and texts, and notice what is gone, as `link` does.

use std::time::Duration;

use bytes::BytesMut;
use mykube_tunnel::{
    Event, Session, SessionError,
    pairing::{AgentEvent, Transmit},
    protocol::{FromAgent, FromRelay, control::Peer, frame, limits},
};
use rand::RngExt as _;

use super::{BACKLOG, DIAL_TIMEOUT, Ev, MS, RELAY_DEAD, ROLES, SECOND, Stage, World};
use crate::net::Item;

impl World {
    pub(super) fn redial(&mut self, who: usize) {
        if self.ends[who].socket.is_some() || self.ends[who].dialling.is_some() {
            return;
        }
        self.dial(who);
    }

    pub(super) fn dial(&mut self, who: usize) {
        self.next_socket += 1;
        let id = self.next_socket;
        self.ends[who].dialling = Some(id);
        let took = self.ends[who].delay * 3 + self.random_delay(20 * MS);
        self.schedule(took, Ev::Admit(who, id));
        self.schedule(DIAL_TIMEOUT, Ev::DialFailed(who, id));
    }

    pub(super) fn later(&mut self, who: usize) {
        let end = &mut self.ends[who];
        let most = if self.now.since(end.away) < 30 * SECOND { SECOND } else { 10 * SECOND };
        let delay = end.backoff.min(most);
        end.backoff = (delay * 2).min(10 * SECOND);
        let delay = delay / 2 + self.random_delay(delay / 2);
        self.schedule(delay, Ev::Redial(who));
    }

    /// The end's connection is gone.
    pub(super) fn lost(&mut self, who: usize, why: &str) {
        self.say(&format_args!("{} lost: {why}", ROLES[who]));
        let now = self.now;
        let end = &mut self.ends[who];
        if let Some(id) = end.socket.take() {
            // What is in the socket's buffer may still arrive, or not.
            let close = self.rng.random_ratio(1, 2);
            if let Some(socket) = self.sockets.get_mut(&id)
                && !socket.up.is_dead()
            {
                if close {
                    self.push(id, true, Item::Close);
                } else {
                    socket.up.kill();
                    let after = self.random_delay(2 * SECOND);
                    self.schedule(after, Ev::RelayLost(id));
                }
            }
        }
        let end = &mut self.ends[who];
        (end.away, end.backoff) = (now, 100 * MS);
        match &mut end.stage {
            Stage::Session(session) => session.handle_transport_lost(now),
            Stage::Client(pairing) => self.unpaired |= !pairing.handle_lost(now),
            Stage::Agent(_) => {}
        }
        if self.ends[who].dialling.is_none() {
            self.later(who);
        }
    }

    /// The session uses another connection from here on.
    pub(super) fn adopt(&mut self, who: usize, id: u32) {
        let now = self.now;
        if self.ends[who].dialling != Some(id) {
            return;
        }
        self.ends[who].dialling = None;
        if let Some(old) = self.ends[who].socket.replace(id)
            && let Some(old) = self.sockets.get_mut(&old)
        {
            old.up.kill();
        }
        self.ends[who].heard = now;
        if let Some(session) = self.session(who) {
            session.handle_transport_lost(now);
        }
    }

    pub(super) fn end_hears(&mut self, id: u32, who: usize, item: Item) {
        if matches!(item, Item::Open) {
            self.adopt(who, id);
        }
        if self.ends[who].socket != Some(id) {
            return;
        }
        self.ends[who].heard = self.now;
        match item {
            Item::Frame(frame) => self.frame(who, frame),
            Item::FromRelay(text) => self.text(who, &text),
            Item::Close => self.lost(who, "closed"),
            Item::Open | Item::FromAgent(_) => {}
        }
        self.service(who);
    }

    pub(super) fn text(&mut self, who: usize, text: &FromRelay) {
        self.say(&format_args!("{} hears {text}", ROLES[who]));
        let (now, rng) = (self.now, &mut self.rng);
        let socket = self.ends[who].socket;
        match (&mut self.ends[who].stage, text) {
            (Stage::Agent(pairing), text) => pairing.handle_relay(now, text, rng),
            (Stage::Client(pairing), FromRelay::PeerHere(_)) => pairing.handle_peer_here(rng),
            (Stage::Session(session), FromRelay::PeerHere(peer)) => {
                session.handle_peer_here(now, rng);
                if who == 1
                    && let (Peer::Attempt(attempt), Some(id)) = (peer, socket)
                {
                    self.push(id, true, Item::FromAgent(FromAgent::Paired(*attempt)));
                }
            }
            (Stage::Session(session), FromRelay::PeerGone(Peer::Session)) => session.handle_transport_lost(now),
            _ => {}
        }
    }

    pub(super) fn frame(&mut self, who: usize, frame: BytesMut) {
        let now = self.now;
        match &mut self.ends[who].stage {
            Stage::Client(pairing) => match pairing.handle_frame(now, frame, &mut self.rng) {
                Ok(Some(established)) => {
                    let session = Session::new(now, *established, self.config);
                    self.counted.late_proofs += u64::from(session.attaches() > 0);
                    self.become_session(who, session);
                }
                Ok(None) => {}
                Err(error) => {
                    self.say(&format_args!("not paired: {error}"));
                    self.unpaired = true;
                }
            },
            Stage::Agent(pairing) => pairing.handle_frame(now, frame),
            Stage::Session(session) => {
                let result = match frame.first() {
                    Some(&(frame::ATTACH_CLIENT | frame::ATTACH_AGENT)) => {
                        session.handle_attach(now, &frame, &mut self.rng);
                        Ok(())
                    }
                    _ => session.handle_frame(now, frame),
                };
                match result {
                    Ok(()) => {}
                    Err(SessionError::Record(_)) => {
                        assert!(self.hostile, "an honest relay and a record that does not open");
                        self.lost(who, "a bad record");
                    }
                    Err(SessionError::Forged) => {
                        assert!(self.tampered >= limits::BAD_RECORDS_MAX);
                        self.ends[who].forged = true;
                    }
                    Err(error) => panic!("{}: {error}", ROLES[who]),
                }
            }
        }
    }

    pub(super) fn become_session(&mut self, who: usize, session: Session) {
        self.say(&format_args!("{} is paired", ROLES[who]));
        self.ends[who].start = Some(session.audit());
        self.ends[who].stage = Stage::Session(Box::new(session));
        // The handshake's last message is on its way: the moment at which a loss hurts most, and those after it.
        if self.early && who == 1 && self.rng.random_ratio(1, 2) {
            if let Some(id) = self.ends[0].socket {
                self.cut(id, true, true);
            }
            for _ in 0..self.rng.random_range(0..4) {
                let at = self.random_delay(3 * SECOND);
                self.schedule(at, Ev::Trouble);
            }
        }
    }

    /// Timers, events, and what is to be sent.
    pub(super) fn service(&mut self, who: usize) {
        let now = self.now;
        if self.ends[who].asleep || self.is_over() {
            return;
        }
        match &mut self.ends[who].stage {
            Stage::Client(pairing) => {
                let late = pairing.handle_timeout(now).is_err();
                let frames: Vec<_> = std::iter::from_fn(|| pairing.poll_transmit()).collect();
                self.unpaired |= late;
                self.push_all(who, frames.into_iter().map(|frame| Item::Frame(BytesMut::from(frame))));
            }
            Stage::Agent(pairing) => {
                pairing.handle_timeout(now);
                let items = std::iter::from_fn(|| pairing.poll_transmit()).map(|transmit| match transmit {
                    Transmit::Relay(text) => Item::FromAgent(text),
                    Transmit::Peer(frame) => Item::Frame(BytesMut::from(frame)),
                });
                let items: Vec<_> = items.collect();
                let mut paired = None;
                while let Some(event) = pairing.poll_event() {
                    match event {
                        AgentEvent::Paired(established) => paired = Some(established),
                        AgentEvent::Spent(_) => self.unpaired = true,
                        _ => {}
                    }
                }
                self.push_all(who, items);
                if let Some(established) = paired {
                    let session = Session::new(now, *established, self.config);
                    self.become_session(who, session);
                }
            }
            Stage::Session(_) => self.service_session(who),
        }
    }

    pub(super) fn service_session(&mut self, who: usize) {
        let now = self.now;
        loop {
            let Stage::Session(session) = &mut self.ends[who].stage else { return };
            session.handle_timeout(now);
            session.ask_again(now, &mut self.rng);
            let mut silent = false;
            while let Some(event) = session.poll_event() {
                silent |= event == Event::Silent;
                self.model.event(who, event);
            }
            if silent {
                self.counted.silences += 1;
                self.lost(who, "silent");
                return;
            }
            let Some(id) = self.ends[who].socket else { return };
            let full = self.sockets.get(&id).is_none_or(|socket| socket.up.free_at().since(now) > BACKLOG);
            if full {
                return;
            }
            let Stage::Session(session) = &mut self.ends[who].stage else { return };
            let Some(frame) = session.poll_transmit(now).expect("both ends are honest") else { return };
            self.counted.frames += 1;
            self.push(id, true, Item::Frame(frame));
        }
    }

    pub(super) fn push_all(&mut self, who: usize, items: impl IntoIterator<Item = Item>) {
        // Without a connection they are lost, as what was given to a broken one is.
        if let Some(id) = self.ends[who].socket {
            for item in items {
                self.push(id, true, item);
            }
        }
    }

    /// While nobody is there, an end asks the relay whether the connection lives.
    pub(super) fn keep_alive(&mut self, who: usize) {
        self.schedule(5 * SECOND, Ev::KeepAlive(who));
        let now = self.now;
        let Some(id) = self.ends[who].socket else { return };
        let alive = self.sockets.get(&id).is_some_and(|socket| !socket.up.is_dead() && !socket.down.is_dead());
        if alive {
            self.ends[who].heard = now;
        }
        let attached = self.session(who).is_some_and(|session| session.is_attached());
        if !attached && now.since(self.ends[who].heard) >= RELAY_DEAD {
            self.lost(who, "the relay does not answer");
        }
    }

    pub(super) fn wake(&mut self, who: usize) {
        self.say(&format_args!("{} wakes", ROLES[who]));
        self.ends[who].asleep = false;
        for ev in std::mem::take(&mut self.ends[who].deferred) {
            self.schedule(Duration::ZERO, ev);
        }
        // Whichever notices first.
        if self.rng.random_ratio(1, 2) {
            self.service(who);
        }
        let now = self.now;
        if let Some(session) = self.session(who) {
            session.probe(now);
            if self.ends[who].socket.is_some() && self.ends[who].dialling.is_none() {
                self.dial(who);
            }
        }
        self.service(who);
    }
}
