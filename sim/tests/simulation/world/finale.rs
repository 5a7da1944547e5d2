//! How a session ends: by a farewell, mostly, or by another's word.

use std::{cmp::Reverse, time::Duration};

use mykube_protocol::close;
use mykube_relay_core::frames::codec::PONG;
use mykube_tunnel::{Time, endpoint::End, session::Audit};
use rand::RngExt as _;

use super::{CALM, Ev, MS, ROLES, SECOND, Stage, World, totals::Totals};
use crate::net::Item;

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
        self.relay.forget_key();
        self.forgotten = true;
        for id in self.relay.sockets() {
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
        let place = self.relay.place_of(ROLES[who]);
        let Some(id) = place.filter(|id| self.ends[who].socket == Some(*id)) else { return };
        if self.sockets[&id].down.is_dead() || self.sockets[&id].up.is_dead() {
            return;
        }
        self.say(&format_args!("the relay closes the connection of {who} with {code}"));
        if code == close::REPLACED {
            self.another_comes(who)
        } else {
            self.last_word = Some(code);
            self.relay_closes(id, code, "")
        }
        self.pass(10 * SECOND);
        let end = self.end_of(who);
        // It may have let go of that connection while the word was on its way.
        if end.is_none() && self.ends[who].final_code.is_none() && self.ends[who].socket != Some(id) {
            return;
        }
        assert!(matches!(&end, Some(End::Lost(lost)) if lost.code() == Some(code)), "{who} ends as {end:?}");
        self.ended = true;
    }

    /// Another holder of an end's ticket takes its place.
    fn another_comes(&mut self, who: usize) {
        let (now, owner, ticket) = (self.now, self.ends[who].owner, self.ends[who].ticket.clone());
        let claims = self.relay.admit(now, &ticket, self.session, ROLES[who]).expect("it is a good ticket");
        self.next_socket += 1;
        let id = self.next_socket;
        self.relay.open(now, id, claims, owner);
        self.relay_acts();
        let Item::Up(pong) = Item::up(PONG, &[]) else { return };
        self.relay_hears(id, &pong);
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

    /// Everything is let go, the books are as at the start, and one end says farewell, perhaps in trouble.
    pub(super) fn part(&mut self) {
        let now = self.now;
        for who in 0..2 {
            if let Stage::Session(endpoint) = &mut self.ends[who].stage {
                self.model.release_all(who, endpoint.session_mut(), now);
                self.service(who);
            }
        }
        self.calm();
        if self.is_over() {
            return;
        }
        assert!(self.model.is_empty(), "every stream was closed at both ends");
        for (who, role) in ROLES.into_iter().enumerate() {
            let start = self.ends[who].start.clone().expect("a session");
            let audit = self.session(who).expect("a session").audit();
            let books = |a: &Audit| {
                (a.session_allowance, a.growth_left, a.kept, a.queued, a.control, a.under_way, a.kept_bytes)
            };
            assert_eq!(books(&audit), books(&start), "{role}");
        }
        let [client, agent] = [0, 1].map(|who| self.session(who).expect("a session").audit());
        assert!(client.session_credit <= agent.session_allowance && agent.session_credit <= client.session_allowance);
        self.parting = true;
        let says = [&[0][..], &[1], &[0, 1]][self.rng.random_range(0..3)];
        for who in says {
            if let Stage::Session(endpoint) = &mut self.ends[*who].stage {
                self.model.say_bye(*who, endpoint.session_mut());
            }
        }
        // A change of the network, or a late dial, may still replace a connection with what is on its way.
        let replaces = |ev: &Ev| matches!(ev, Ev::NetworkChanged(..) | Ev::Admit(..) | Ev::Place(..));
        let changes = self.queue.iter().any(|Reverse((.., ev))| replaces(ev));
        let troubled = self.rng.random_ratio(1, 2);
        if troubled {
            self.trouble_for_a_while();
        }
        let troubled = troubled || changes;
        self.wait_until_up();
        let by = self.now + CALM;
        while !self.is_over() {
            assert!(self.now < by, "a farewell that never arrives");
            // With its acknowledgement lost, only the time that its sender waits ends the session there.
            let over = self.ends.iter().all(|end| end.over);
            if self.model.byes_heard() && (over || troubled) {
                return;
            }
            self.run_until(self.now + 200 * MS);
        }
    }

    pub(super) fn add_to(mut self, totals: &mut Totals) {
        let counts = &mut self.counted.counts;
        counts.bytes = self.model.bytes;
        counts.unpaired = u64::from(self.unpaired);
        counts.forged = u64::from(self.ends.iter().any(|end| end.forged));
        (self.counted.schedules, self.counted.time) = (1, self.now.since(Time::from_micros(1_000_000)));
        self.counted.counts.attaches = self.session(0).map_or(0, |session| session.attaches());
        *totals += self.counted;
    }
}
