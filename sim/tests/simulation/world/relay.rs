//! The relay, honest or not, and the network around it.

use std::{cmp::Reverse, time::Duration};

use bytes::BytesMut;
use mykube_protocol::{
    FromAgent, FromRelay, Role,
    close::{self, Stage as Of, Verdict, verdict},
    frame,
    relay_text::Peer,
};
use mykube_relay_core::{defaults::CLOSE_TIMEOUT, ticket::TicketError};
use mykube_tunnel::Time;
use rand::RngExt as _;

use super::{Answer, Ev, ROLES, SECOND, Stage, TICK, World};
use crate::{
    net::{Item, Socket},
    relay::{Effect, Relay},
};

impl World {
    pub(super) fn push(&mut self, id: u32, up: bool, item: Item) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let (delay, rate) = match self.ends.get(socket.who) {
            Some(end) => (end.delay, end.rate),
            None => (self.strangers[socket.who - 2].delay, 0),
        };
        let jitter = Duration::from_micros(self.rng.random_range(0..=delay.as_micros() as u64 / 4 + 50));
        let renewed = if up { None } else { self.relay.renewed(self.now, id) };
        if let Some(at) = socket.pipe(up).push(self.now, item, renewed, rate, delay + jitter) {
            self.serial += 1;
            self.queue.push(Reverse((at, self.serial, Ev::Arrive(id, up))));
        }
    }

    /// An end writes a frame.
    pub(super) fn write(&mut self, id: u32, opcode: u8, payload: &[u8]) {
        self.push(id, true, Item::up(opcode, payload));
    }

    /// What the relay has decided.
    pub(super) fn relay_acts(&mut self) {
        while let Some(effect) = self.relay.poll_effect() {
            match effect {
                Effect::Joined(id) => {
                    if self.sockets.get(&id).is_some_and(|socket| socket.who == 1) {
                        self.tell_lies(id);
                    }
                }
                Effect::Say(id, text) => self.push(id, false, Item::Text(text.to_string())),
                Effect::Heard(text) => {
                    if let FromAgent::Refused(attempt) = text {
                        self.counted.counts.lies += u64::from(self.lies.remove(&attempt));
                    }
                }
                Effect::Forward { from, to, frame } => self.relay_forwards(from, to, frame),
                Effect::Ping(id) => self.push(id, false, Item::Ping),
                Effect::Pong(id) => self.push(id, false, Item::Pong),
                Effect::Close(id, code, reason) => {
                    self.judge_close(id, code, &reason);
                    let after = self.random_delay(CLOSE_TIMEOUT);
                    self.schedule(after, Ev::RelayEnded(id));
                    if let Some(socket) = self.sockets.get_mut(&id) {
                        socket.up.kill();
                        self.push(id, false, Item::Close(code, reason));
                    }
                }
                Effect::Place(id, after) => self.schedule(after, Ev::Place(id)),
                Effect::Listen(id, after) => self.schedule(after, Ev::Listen(id)),
            }
        }
    }

    /// A relay that is asked nothing of the sort, and knows the pairing, ends a session for one reason only: the other end was away for too long.
    fn judge_close(&self, id: u32, code: u16, reason: &str) {
        let Some(who) = self.sockets.get(&id).map(|socket| socket.who).filter(|who| *who < 2) else { return };
        let reconnects = matches!(verdict(Some(code), Of::Session), Verdict::Reconnect | Verdict::Replaced);
        if reconnects || !self.stands(who) || self.last_word == Some(code) {
            return;
        }
        let away = self.relay.absent(self.now, ROLES[1 - who]);
        // Where it does not know that they are paired, it waits for a code's agent, and not for long.
        let has_session_ticket = self.ends[who].ticket != self.ends[who].first_ticket;
        let unaware = self.relay.is_unaware(has_session_ticket) && [close::EXPIRED, close::NO_SESSION].contains(&code);
        let right = unaware || code == close::EXPIRED && away.is_some_and(|away| away >= self.relay.session_grace());
        assert!(right, "the relay ends the session of {who}: {code} {reason}, the other end is away for {away:?}");
    }

    /// The relay looks at a socket, and does what is due. Of who comes too late nobody else hears.
    pub(super) fn relay_asked(&mut self, id: u32, ask: impl FnOnce(&mut Relay, Time)) {
        // The one who has a place already is the client that paired: a stranger may know the code.
        let stranger = self.sockets.get(&id).is_some_and(|socket| socket.who >= 2);
        let late = stranger && self.relay.knows_pairing() && !self.relay.has_place(id);
        ask(&mut self.relay, self.now);
        for effect in self.relay.effects().filter(|_| late) {
            assert!(
                matches!(effect, Effect::Close(of, ..) | Effect::Ping(of) | Effect::Place(of, _) if *of == id),
                "{effect:?}"
            );
        }
        let counts = &mut self.counted.counts;
        for effect in self.relay.effects() {
            match effect {
                Effect::Close(of, close::TOO_MANY, _) if *of == id => counts.sent_away += 1,
                Effect::Close(of, close::SILENT, _) if *of == id => counts.given_up += 1,
                Effect::Place(of, _) if *of == id => counts.waited += 1,
                _ => {}
            }
        }
        self.relay_acts();
    }

    pub(super) fn relay_ticks(&mut self) {
        self.schedule(TICK, Ev::Tick);
        self.relay.tick(self.now);
        self.relay_acts();
        if let Some(agent) = self.relay.place_of(Role::Agent) {
            self.tell_lies(agent);
        }
    }

    /// Attempts that nobody has made are said to be here.
    fn tell_lies(&mut self, agent: u32) {
        for lie in self.lies.clone() {
            self.push(agent, false, Item::Text(FromRelay::PeerHere(Peer::Attempt(lie)).to_string()));
        }
    }

    /// The relay closes a connection, and hears nothing more of it.
    pub(super) fn relay_closes(&mut self, id: u32, code: u16, reason: &str) {
        self.relay.close(self.now, id, code, reason);
        self.relay_acts();
    }

    /// A dial reaches the relay, also one that was given up on its way.
    pub(super) fn admit(&mut self, who: usize, id: u32) {
        let Some(shown) = self.shown.remove(&id) else { return };
        let (wanted, owner, offline) = match self.ends.get(who) {
            Some(end) => (end.dials.contains_key(&id), end.owner, end.offline > self.now),
            None => (true, self.strangers[who - 2].address.into(), false),
        };
        if !wanted && self.rng.random_ratio(1, 2) {
            return;
        }
        let role = if who == 1 { Role::Agent } else { Role::Client };
        let refusal = if self.down || offline {
            Answer::None
        } else if self.portal_until > self.now {
            Answer::Portal
        } else {
            match self.relay.admit(self.now, &shown.ticket, self.session, role) {
                Ok(claims) => {
                    if let Some(stranger) = who.checked_sub(2) {
                        self.strangers[stranger].late = self.relay.knows_pairing();
                    }
                    self.sockets.insert(id, Socket { who, ..Socket::default() });
                    self.push(id, false, Item::Open);
                    self.relay_asked(id, |relay, now| relay.open(now, id, claims, owner));
                    if !wanted {
                        self.say(&format_args!("{} is admitted by a dial it has given up", ROLES[who]));
                        self.counted.counts.echoes += 1;
                        let after = self.random_delay(2 * SECOND);
                        self.schedule(after, Ev::RelayLost(id));
                    }
                    return;
                }
                Err(error) => {
                    let expired = error == TicketError::Expired;
                    assert!(expired || self.forgotten, "it is a ticket of this end: {error}");
                    self.counted.counts.expired += u64::from(expired);
                    if let Some(end) = self.ends.get_mut(who) {
                        let since = shown.renewed.map(|at| self.relay.clock(self.now) - at);
                        let lasts = self.relay.ticket_lasts() - TICK;
                        let right = !expired || shown.ticket == end.first_ticket || since.is_none_or(|it| it >= lasts);
                        assert!(right, "{}: its ticket has expired, {since:?} after it was there", ROLES[who]);
                        end.refused = true;
                    }
                    Answer::Refused
                }
            }
        };
        let after = self.random_delay(SECOND);
        self.schedule(after, Ev::DialFailed(who, id, refusal));
    }

    pub(super) fn relay_lost(&mut self, id: u32) {
        self.relay_closes(id, close::SILENT, "");
    }

    pub(super) fn relay_hears(&mut self, id: u32, bytes: &[u8]) {
        self.relay.hear(self.now, id, bytes);
        self.relay_acts();
    }

    fn relay_forwards(&mut self, from: u32, to: u32, mut frame: BytesMut) {
        let who = self.sockets[&from].who;
        if self.hostile && who < 2 {
            if self.tape[who].len() < 40 {
                self.tape[who].push(frame.clone());
            } else if self.rng.random_ratio(1, 4) {
                let at = self.rng.random_range(0..40);
                self.tape[who][at] = frame.clone();
            }
            if self.swallow[who] > 0 {
                self.swallow[who] -= 1;
                self.tampered += 1;
                return;
            }
            let mut spoilt = self.spoil[who] > 0;
            self.spoil[who] = self.spoil[who].saturating_sub(1);
            if let Some(had_first) = &mut self.spoils_all {
                match frame[0] {
                    frame::ATTACH_AGENT => *had_first = [false; 2],
                    frame::RECORD => spoilt |= std::mem::replace(&mut had_first[who], true),
                    _ => {}
                }
            }
            if spoilt {
                self.tampered += 1;
                let at = self.rng.random_range(0..frame.len());
                frame[at] ^= 1 << self.rng.random_range(0..8);
                let len = self.rng.random_range(1..=frame.len() * 3);
                frame.truncate(len);
            }
        }
        self.push(to, false, Item::Frame(frame));
    }

    /// Whether an end's session stands, so that the relay may speak to it as to one.
    pub(super) fn stands(&self, who: usize) -> bool {
        matches!(self.ends[who].stage, Stage::Session(_))
    }
}
