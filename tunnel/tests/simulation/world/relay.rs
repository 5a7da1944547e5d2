//! The relay, honest or not, and the network around it.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use mykube_tunnel::protocol::{Attempt, FromAgent, FromRelay, Ticket, close, control::Peer, frame};
use rand::RngExt as _;

use super::{ATTEMPT, Answer, Ev, ROLES, SECOND, Stage, World};
use crate::net::{Item, Socket};

/// What the relay does of itself.
pub(super) enum Action {
    Say(u32, FromRelay),
    Close(u32, u16),
}

/// What the simulation needs of a relay, and no more: who is admitted, who replaces whom, and what is said to whom. The real
/// registry can stand here.
#[derive(Default)]
pub(super) struct Relay {
    /// It knows that the attempt was paired.
    pub(super) paired: bool,
    pub(super) slots: [Option<u32>; 2],
    /// By role: the newest ticket, and the oldest that is taken.
    newest: [u32; 2],
    pub(super) oldest: [u32; 2],
    /// It was set up anew: no ticket is taken.
    pub(super) forgets: bool,
    /// Other clients that try the code, and were not refused yet.
    pub(super) strangers: BTreeSet<Attempt>,
    actions: VecDeque<Action>,
}

pub(super) fn ticket(number: u32) -> Ticket {
    Ticket::from_bytes(&number.to_be_bytes())
}

pub(super) fn number(ticket: &Ticket) -> u32 {
    u32::from_be_bytes(ticket.to_bytes().try_into().unwrap())
}

impl Relay {
    /// A socket with that ticket: whether it is taken.
    fn join(&mut self, who: usize, socket: u32, ticket: u32) -> bool {
        if self.forgets || ticket < self.oldest[who] {
            return false;
        }
        if let Some(old) = self.slots[who].replace(socket) {
            self.actions.push_back(Action::Close(old, close::REPLACED));
        }
        if who == 1 {
            let tries = self.strangers.iter().map(|stranger| FromRelay::PeerHere(Peer::Attempt(*stranger)));
            self.actions.extend(tries.map(|text| Action::Say(socket, text)));
        }
        if let [Some(client), Some(agent)] = self.slots {
            let here = FromRelay::PeerHere(self.peer());
            self.actions.extend([client, agent].map(|socket| Action::Say(socket, here.clone())));
        }
        true
    }

    fn peer(&self) -> Peer {
        if self.paired { Peer::Session } else { Peer::Attempt(ATTEMPT) }
    }

    /// A socket is gone.
    fn leave(&mut self, who: usize, socket: u32) {
        if self.slots[who] == Some(socket) {
            self.slots[who] = None;
            if let Some(peer) = self.slots[1 - who] {
                self.actions.push_back(Action::Say(peer, FromRelay::PeerGone(self.peer())));
            }
        }
    }

    fn hear(&mut self, text: &FromAgent) {
        match text {
            FromAgent::Paired(_) if self.slots[0].is_some() && !self.paired => {
                self.paired = true;
                self.renew();
            }
            FromAgent::Refused(attempt) => drop(self.strangers.remove(attempt)),
            _ => {}
        }
    }

    /// Newer tickets for whoever is there.
    pub(super) fn renew(&mut self) {
        for (newest, socket) in self.newest.iter_mut().zip(self.slots) {
            if let Some(socket) = socket {
                *newest += 1;
                self.actions.push_back(Action::Say(socket, FromRelay::Ticket(ticket(*newest))));
            }
        }
    }

    pub(super) fn stranger(&mut self, attempt: Attempt) {
        if let Some(agent) = self.slots[1].filter(|_| self.paired) {
            self.strangers.insert(attempt);
            self.actions.push_back(Action::Say(agent, FromRelay::PeerHere(Peer::Attempt(attempt))));
        }
    }

    /// It stops, and what it knew it reads from the tickets, if those were out.
    pub(super) fn restart(&mut self, paired: bool) {
        (self.slots, self.paired) = ([None; 2], paired);
    }
}

impl World {
    pub(super) fn push(&mut self, id: u32, up: bool, item: Item) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let end = &self.ends[socket.who];
        let jitter = Duration::from_micros(self.rng.random_range(0..=end.delay.as_micros() as u64 / 4 + 50));
        if let Some(at) = socket.pipe(up).push(self.now, item, end.rate, end.delay + jitter) {
            self.serial += 1;
            self.queue.push(Reverse((at, self.serial, Ev::Arrive(id, up))));
        }
    }

    /// What the relay has decided.
    pub(super) fn relay_acts(&mut self) {
        while let Some(action) = self.relay.actions.pop_front() {
            match action {
                Action::Say(socket, text) => self.push(socket, false, Item::FromRelay(text)),
                Action::Close(socket, code) => self.relay_closes(socket, code, ""),
            }
        }
    }

    /// The relay closes a connection, and hears nothing more of it.
    pub(super) fn relay_closes(&mut self, id: u32, code: u16, reason: &str) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let who = socket.who;
        socket.up.kill();
        self.push(id, false, Item::Close(code, reason.into()));
        self.relay.leave(who, id);
        self.relay_acts();
    }

    /// A dial reaches the relay, also one that was given up on its way.
    pub(super) fn admit(&mut self, who: usize, id: u32) {
        let wanted = self.ends[who].dials.contains_key(&id);
        let Some(shown) = self.shown.remove(&id) else { return };
        if !wanted && self.rng.random_ratio(1, 2) {
            return;
        }
        let refusal = if self.down || self.ends[who].offline > self.now {
            Some(Answer::None)
        } else if self.portal_until > self.now {
            Some(Answer::Portal)
        } else if !self.relay.join(who, id, shown) {
            Some(Answer::Refused)
        } else {
            None
        };
        if let Some(answer) = refusal {
            let after = self.random_delay(SECOND);
            self.schedule(after, Ev::DialFailed(who, id, answer));
            return;
        }
        self.sockets.insert(id, Socket { who, ..Socket::default() });
        self.push(id, false, Item::Open);
        self.relay_acts();
        if !wanted {
            self.say(&format_args!("{} is admitted by a dial it has given up", ROLES[who]));
            self.counted.echoes += 1;
            let after = self.random_delay(2 * SECOND);
            self.schedule(after, Ev::RelayLost(id));
        }
    }

    pub(super) fn relay_lost(&mut self, id: u32) {
        self.relay_closes(id, close::SILENT, "");
    }

    pub(super) fn relay_hears(&mut self, id: u32, who: usize, item: Item) {
        if self.relay.slots[who] != Some(id) {
            return;
        }
        match item {
            Item::Frame(frame) => self.relay_forwards(who, frame),
            Item::FromAgent(text) => {
                self.relay.hear(&text);
                self.relay_acts();
            }
            Item::Ping => self.push(id, false, Item::Pong),
            Item::Close(..) => self.relay_lost(id),
            _ => {}
        }
    }

    fn relay_forwards(&mut self, who: usize, mut frame: bytes::BytesMut) {
        if self.hostile {
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
        if let Some(peer) = self.relay.slots[1 - who] {
            self.push(peer, false, Item::Frame(frame));
        }
    }

    /// Whether an end's session stands, so that the relay may speak to it as to one.
    pub(super) fn stands(&self, who: usize) -> bool {
        matches!(self.ends[who].stage, Stage::Session(_))
    }
}
