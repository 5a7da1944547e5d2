//! Sessions that end otherwise than by a farewell that is heard.

use std::{cmp::Reverse, time::Duration};

use mykube_tunnel::{endpoint::End, protocol::close};
use rand::RngExt as _;

use super::{Ev, SECOND, Stage, World};

impl World {
    /// One of the ways in which a session is over at once.
    pub(super) fn finale(&mut self) {
        let who = self.rng.random_range(0..2);
        // No trouble is left over that would hide what is looked for.
        self.queue.retain(|Reverse((.., ev))| !matches!(ev, Ev::Trouble | Ev::NetworkChanged(..) | Ev::Admit(..)));
        match self.rng.random_range(0..4) {
            0 => self.refused(),
            1 => {
                let code = [close::NO_SESSION, close::EXPIRED, close::UPGRADE][self.rng.random_range(0..3)];
                self.final_word(who, code);
            }
            2 => {
                // Whatever dial was given up before explains nothing any more.
                self.pass(31 * SECOND);
                self.calm();
                if self.ends.iter().all(|end| end.given_up.is_none_or(|at| self.now.since(at) > 30 * SECOND)) {
                    self.final_word(who, close::REPLACED);
                }
            }
            _ => self.leaves_in_an_outage(who),
        }
    }

    /// Goes on, whoever ends.
    fn pass(&mut self, long: Duration) {
        let until = self.now + long;
        let mut steps = 0_u64;
        while self.step(until) {
            steps += 1;
            assert!(steps < 1_000_000, "it spins at {:?}", self.now);
        }
    }

    fn end_of(&self, who: usize) -> Option<End> {
        match &self.ends[who].stage {
            Stage::Session(endpoint) => endpoint.ended().cloned(),
            _ => None,
        }
    }

    /// The relay was set up anew: it takes no ticket that was made before.
    fn refused(&mut self) {
        self.relay.forgets = true;
        for id in self.relay.slots.into_iter().flatten() {
            self.relay_closes(id, close::SILENT, "");
        }
        self.ended = false;
        let until = self.now + 60 * SECOND;
        while self.step(until) {
            self.ended = false;
        }
        for who in 0..2 {
            let end = self.end_of(who);
            let lost = matches!(&end, Some(End::Lost(_))) && self.window.is_zero();
            let window = matches!(&end, Some(End::Window { .. }));
            assert!(lost || window || matches!(end, Some(End::Refused(_))), "{who} ends as {end:?}");
        }
        self.ended = true;
    }

    /// One end's session is over by the relay's word; the other waits.
    fn final_word(&mut self, who: usize, code: u16) {
        let Some(id) = self.relay.slots[who].filter(|id| self.ends[who].socket == Some(*id)) else { return };
        if self.sockets[&id].down.is_dead() || self.sockets[&id].up.is_dead() {
            return;
        }
        self.say(&format_args!("the relay closes the connection of {who} with {code}"));
        self.relay_closes(id, code, "");
        self.pass(10 * SECOND);
        let end = self.end_of(who);
        assert!(matches!(&end, Some(End::Lost(lost)) if lost.code() == Some(code)), "{who} ends as {end:?}");
        self.ended = true;
    }

    /// With nobody to hear it, a farewell takes no longer than it may.
    fn leaves_in_an_outage(&mut self, who: usize) {
        self.restart_relay();
        let now = self.now;
        if let Stage::Session(endpoint) = &mut self.ends[who].stage {
            self.model.leave(now, who, endpoint);
            self.service(who);
        }
        self.pass(5 * SECOND);
        let end = self.end_of(who);
        // It may also have heard the relay's or the other end's last word.
        assert!(end.is_some() && self.ends[who].over, "{who} does not leave: {end:?}");
        self.ended = true;
    }
}
