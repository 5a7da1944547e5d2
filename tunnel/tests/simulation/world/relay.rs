//! The relay, honest or not, and the network around it.

use std::{cmp::Reverse, time::Duration};

use mykube_tunnel::protocol::{FromAgent, FromRelay, control::Peer, frame};
use rand::RngExt as _;

use super::{ATTEMPT, Ev, SECOND, World};
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

    pub(super) fn admit(&mut self, who: usize, id: u32) {
        let now = self.now;
        if self.ends[who].dialling != Some(id) {
            return;
        }
        if self.relay.down || self.ends[who].offline > now {
            let after = self.random_delay(SECOND);
            self.schedule(after, Ev::DialFailed(who, id));
            return;
        }
        // A dial beside a connection that has shown life meanwhile is given up.
        if self.ends[who].socket.is_some()
            && let Some(session) = self.session(who)
            && session.is_attached()
            && !session.is_probing()
        {
            self.ends[who].dialling = None;
            return;
        }
        self.sockets.insert(id, Socket { who, ..Socket::default() });
        self.push(id, false, Item::Open);
        if let Some(old) = self.relay.slots[who].replace(id)
            && let Some(socket) = self.sockets.get_mut(&old)
        {
            socket.up.kill();
            self.push(old, false, Item::Close);
        }
        if let [Some(client), Some(agent)] = self.relay.slots {
            let here = FromRelay::PeerHere(if self.relay.paired { Peer::Session } else { Peer::Attempt(ATTEMPT) });
            for socket in [client, agent] {
                self.push(socket, false, Item::FromRelay(here.clone()));
            }
        }
    }

    pub(super) fn relay_lost(&mut self, id: u32) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let who = socket.who;
        socket.up.kill();
        if self.relay.slots[who] == Some(id) {
            self.relay.slots[who] = None;
            if let Some(peer) = self.relay.slots[1 - who] {
                let gone = FromRelay::PeerGone(if self.relay.paired { Peer::Session } else { Peer::Attempt(ATTEMPT) });
                self.push(peer, false, Item::FromRelay(gone));
            }
        }
        self.push(id, false, Item::Close);
    }

    pub(super) fn relay_hears(&mut self, id: u32, who: usize, item: Item) {
        if self.relay.slots[who] != Some(id) {
            return;
        }
        let peer = self.relay.slots[1 - who];
        match item {
            Item::Frame(mut frame) => {
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
                if let Some(peer) = peer {
                    self.push(peer, false, Item::Frame(frame));
                }
            }
            Item::FromAgent(FromAgent::Paired(_)) if peer.is_some() => self.relay.paired = true,
            Item::Close => self.relay_lost(id),
            _ => {}
        }
    }
}
