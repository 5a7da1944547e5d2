//! What goes wrong.

use bytes::BytesMut;
use mykube_protocol::{Attempt, FromRelay, close, relay_text::Peer};
use rand::{Rng as _, RngExt as _};

use super::{
    Ev, MS, ROLES, SECOND, World,
    totals::{HONEST, TROUBLES},
};
use crate::net::Item;

impl World {
    pub(super) fn trouble_for_a_while(&mut self) {
        let long = [2, 20, 120, 900, 4000][[0, 1, 1, 2, 2, 2, 3, 4][self.rng.random_range(0..8)]] * SECOND;
        let (long, early) = (self.random_delay(long), self.rng.random_ratio(1, 3));
        for _ in 0..self.rng.random_range(0..9) {
            // Some of it in a heap.
            let at = self.random_delay(if early { long / 20 } else { long });
            self.schedule(at, Ev::Trouble);
        }
        for _ in 0..if self.parting { 0 } else { self.rng.random_range(3..60) } {
            let (at, who) = (self.random_delay(if early { long / 10 } else { long }), self.rng.random_range(0..2));
            self.schedule(at, Ev::Act(who));
        }
        self.run_until(self.now + long);
        self.model.stalled = [false; 2];
        (self.swallow, self.spoil, self.spoils_all) = ([0; 2], [0; 2], None);
    }

    pub(super) fn trouble(&mut self) {
        let kind = self.rng.random_range(0..if self.hostile { TROUBLES.len() } else { HONEST });
        let who = self.rng.random_range(0..2);
        self.say(&format_args!("trouble: {} at the {}", TROUBLES[kind], ROLES[who]));
        *self.counted.troubles.entry(TROUBLES[kind]).or_default() += 1;
        let current = self.ends[who].socket;
        match TROUBLES[kind] {
            "cut" => current.into_iter().for_each(|id| self.cut(id, true, true)),
            "closed" => {
                let (code, reason) = if self.stands(0) && self.stands(1) {
                    [
                        (1001, ""),
                        (close::SILENT, ""),
                        (close::TOO_MANY, "retry-after=10000; too many sessions"),
                        (close::TOO_BIG, ""),
                    ][self.rng.random_range(0..4)]
                } else {
                    (close::SILENT, "")
                };
                current.into_iter().for_each(|id| self.relay_closes(id, code, reason));
            }
            "silent" => current.into_iter().for_each(|id| self.silence(id, true, true)),
            "half open" => {
                let up = self.rng.random_ratio(1, 2);
                current.into_iter().for_each(|id| self.silence(id, up, !up));
            }
            "relay restart" => self.restart_relay(),
            "offline" => {
                let most = [SECOND, 30 * SECOND, 600 * SECOND][self.rng.random_range(0..3)];
                let long = self.random_delay(most);
                self.ends[who].offline = self.now + long;
                let noticed = self.rng.random_range(0..3);
                if let Some(id) = current {
                    if noticed == 0 { self.cut(id, true, true) } else { self.silence(id, true, true) }
                }
                if noticed == 1 {
                    let after = self.random_delay(SECOND);
                    self.schedule(after, Ev::NetworkChanged(who, false));
                }
                if self.rng.random_ratio(3, 4) {
                    self.schedule(long, Ev::NetworkChanged(who, true));
                }
            }
            "drained" => self.drain(),
            "login page" => {
                let long = self.random_delay(60 * SECOND);
                self.portal_until = self.now + long;
            }
            "tickets renewed" => {
                // Before the ends are paired there are none to renew, and the code would be over.
                if self.relay.knows_pairing() {
                    let renewal = self.relay.renewal();
                    self.relay.pass(self.now, renewal);
                    self.relay_acts();
                }
            }
            "stranger" => match self.rng.random_range(0..5) {
                0 => self.guess(),
                // In honest schedules too: it changes nothing of what is promised there.
                1 | 2 if self.stands(1) => {
                    self.lies.insert(Attempt::from_bytes([self.rng.random(); 16]));
                }
                _ => self.stranger_comes(false),
            },
            "crowded" => self.crowd(who),
            "network changed" => {
                for _ in 0..self.rng.random_range(1..5) {
                    let (at, routed) = (self.random_delay(2 * SECOND), self.rng.random_ratio(1, 2));
                    self.schedule(at, Ev::NetworkChanged(who, routed));
                }
            }
            "suspended" => self.suspend(who),
            "stalled reader" => self.model.stalled[who] ^= true,
            "other path" => {
                self.ends[who].delay = MS * [0, 1, 5, 30, 100, 400][self.rng.random_range(0..6)];
                self.ends[who].rate = [0, 0, 0, 100_000, 1_000_000][self.rng.random_range(0..5)];
            }
            "stuck" => {
                let until = self.now + self.random_delay(20 * SECOND);
                if let Some(socket) = current.and_then(|id| self.sockets.get_mut(&id)) {
                    socket.up.stall(until);
                }
            }
            "replayed" => {
                for _ in 0..self.rng.random_range(1..4) {
                    self.replay(1 - who, who);
                }
            }
            "reflected" => self.replay(who, who),
            "forged" => self.forge(who),
            "swallowed" => self.swallow[who] += self.rng.random_range(1..4),
            _ => self.spurious(who),
        }
    }

    /// The connection breaks in both directions or in one; its two sides notice at their own time.
    pub(super) fn cut(&mut self, id: u32, end_notices: bool, relay_notices: bool) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.up.kill();
            socket.down.kill();
        }
        if end_notices {
            let after = self.random_delay(2 * SECOND);
            self.schedule(after, Ev::EndLost(id));
        }
        if relay_notices {
            let after = self.random_delay(2 * SECOND);
            self.schedule(after, Ev::RelayLost(id));
        }
    }

    /// Frames vanish, and nobody is told.
    pub(super) fn silence(&mut self, id: u32, up: bool, down: bool) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if up {
            socket.up.kill();
        }
        if down {
            socket.down.kill();
        }
    }

    pub(super) fn restart_relay(&mut self) {
        for id in self.relay.sockets() {
            self.cut(id, true, false);
        }
        // Where the client comes first its ticket says so: this makes about one restart in eight.
        let unaware = self.stands(0) && self.relay.knows_pairing() && self.rng.random_ratio(3, 8);
        let unaware = self.paired.filter(|_| unaware).map(|attempt| (self.nameplate.clone(), attempt));
        self.relay.restart(self.now, unaware);
        self.down = true;
        let most = [100 * MS, 5 * SECOND, 60 * SECOND][self.rng.random_range(0..3)];
        let after = self.random_delay(most);
        self.schedule(after, Ev::RelayUp);
    }

    /// The relay leaves in order, and spreads its ends over the time after it.
    fn drain(&mut self) {
        let most = [100 * MS, 5 * SECOND, 60 * SECOND][self.rng.random_range(0..3)];
        for id in self.relay.sockets() {
            let reason = close::retry_reason(self.random_delay(most), "");
            self.relay_closes(id, close::RESTART, &reason);
        }
        self.relay.restart(self.now, None);
        self.down = true;
        let after = self.random_delay(5 * SECOND);
        self.schedule(after, Ev::RelayUp);
    }

    pub(super) fn suspend(&mut self, who: usize) {
        if self.ends[who].asleep {
            return;
        }
        let most = [SECOND, 60 * SECOND, 3600 * SECOND][self.rng.random_range(0..3)];
        let long = self.random_delay(most);
        (self.ends[who].asleep, self.ends[who].sleeps_since) = (true, self.now);
        self.schedule(long, Ev::Wake(who));
    }

    /// The relay says again what `from` once said.
    pub(super) fn replay(&mut self, from: usize, to: usize) {
        let Some(id) = self.relay.place_of(ROLES[to]) else { return };
        if let Some(frame) = self.tape[from].get(self.rng.random_range(0..self.tape[from].len().max(1))) {
            let frame = frame.clone();
            self.tampered += 1;
            self.push(id, false, Item::Frame(frame));
        }
    }

    pub(super) fn forge(&mut self, who: usize) {
        if self.rng.random_ratio(1, 2) {
            self.spoil[who] += self.rng.random_range(1..4);
            if self.rng.random_ratio(1, 10) {
                self.spoils_all = Some([true; 2]);
            }
        } else if let Some(id) = self.relay.place_of(ROLES[who]) {
            let mut frame = BytesMut::zeroed(self.rng.random_range(1..200));
            self.rng.fill_bytes(&mut frame);
            frame[0] = self.rng.random_range(1..7);
            self.tampered += 1;
            self.push(id, false, Item::Frame(frame));
        }
    }

    pub(super) fn spurious(&mut self, who: usize) {
        let Some(id) = self.relay.place_of(ROLES[who]) else { return };
        let text = match self.rng.random_range(0..4) {
            0 => FromRelay::PeerGone(Peer::Session),
            1 => FromRelay::PeerHere(Peer::Attempt(self.attempt)),
            _ => FromRelay::PeerHere(Peer::Session),
        };
        self.push(id, false, Item::Text(text.to_string()));
    }
}
