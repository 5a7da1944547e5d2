//! The relay, honest or not, and the network around it.

use std::{cmp::Reverse, time::Duration};

use mykube_tunnel::protocol::{close, frame};
use rand::RngExt as _;

use super::{Answer, Ev, ROLES, SECOND, Stage, World, registry::Action};
use crate::net::{Item, Socket};

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
