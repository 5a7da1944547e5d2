//! Others at the relay: who claims the same code, who asks too often, and who has too many sessions.

use std::time::Duration;

use mykube_protocol::{
    FromRelay,
    close::{self, Stage as Of, verdict},
    limits::API_REQUESTS_PER_MINUTE,
};
use mykube_relay_core::{
    address::AddressKey,
    frames::codec::{BINARY, CLOSE, PONG},
    owner::Owner,
    quota::retry_after,
    registry::CreateError,
};
use mykube_tunnel::pairing::ClientPairing;
use rand::RngExt as _;

use super::{
    Answer, DIAL_TIMEOUT, Ev, MS, SECOND, Shown, Stage, TICK, World,
    stranger::{Fate, Stranger, address, code},
};
use crate::{net::Item, relay::ClaimError};

impl World {
    /// Several clients claim the code at one moment: strangers, or one that knows it as well.
    pub(super) fn race(&mut self) {
        self.counted.counts.races += 1;
        let knows = self.rng.random_ratio(1, 3);
        self.stranger_comes(knows);
        self.stranger_comes(false);
    }

    pub(super) fn stranger_comes(&mut self, knows: bool) {
        self.counted.counts.strangers += 1;
        let delay = MS * [0, 1, 5, 30, 100, 400][self.rng.random_range(0..6)];
        let address = self.another_address();
        let (attempt, pairing, socket, fate) = (None, None, None, None);
        self.strangers.push(Stranger { address, delay, fate, knows, attempt, pairing, socket, late: false });
        self.schedule(Duration::ZERO, Ev::Claim(self.strangers.len() + 1));
    }

    fn another_address(&mut self) -> AddressKey {
        self.next_address += 1;
        address(self.next_address)
    }

    fn stranger(&mut self, who: usize) -> &mut Stranger {
        &mut self.strangers[who - 2]
    }

    pub(super) fn claim(&mut self, who: usize) {
        if self.down {
            self.stranger(who).fate = Some(Fate::Failed);
            return;
        }
        let (now, address, knows) = (self.now, self.stranger(who).address, self.stranger(who).knows);
        match self.relay.claim(now, address, &self.nameplate, &mut self.rng) {
            // After a restart another session may have drawn the nameplate.
            Ok((session, ..)) if session != self.session => self.stranger(who).fate = Some(Fate::NotFound),
            Ok((_, attempt, ticket)) => {
                assert!(!self.relay.knows_pairing(), "a code that is spent is claimed");
                let pairing = ClientPairing::new(now, self.session, code(&self.nameplate, knows), false);
                let stranger = self.stranger(who);
                (stranger.attempt, stranger.pairing) = (Some(attempt), Some(Box::new(pairing)));
                self.next_socket += 1;
                let (socket, took) = (self.next_socket, self.stranger(who).delay * 3);
                self.shown.insert(socket, Shown { ticket, renewed: None });
                self.schedule(took, Ev::Admit(who, socket));
                self.schedule(DIAL_TIMEOUT, Ev::DialFailed(who, socket, Answer::None));
            }
            Err(ClaimError::NoSuchNameplate) => {
                let waits = matches!(self.ends[1].stage, Stage::Agent(_)) && self.ends[1].socket.is_some();
                assert!(!waits || self.relay.place_of(super::ROLES[1]).is_none(), "the code waits");
                self.counted.counts.not_found += 1;
                self.stranger(who).fate = Some(Fate::NotFound);
            }
            Err(ClaimError::TooMany(_)) => panic!("it asks for the first time"),
        }
    }

    pub(super) fn stranger_dial_failed(&mut self, who: usize) {
        if self.stranger(who).socket.is_none() {
            self.over(who, Fate::Failed);
        }
    }

    pub(super) fn stranger_hears(&mut self, id: u32, who: usize, item: Item) {
        let (now, stranger, rng) = (self.now, &mut self.strangers[who - 2], &mut self.rng);
        if let Item::Open = item {
            stranger.socket = Some(id);
        }
        let Some(pairing) = stranger.pairing.as_mut().filter(|_| stranger.fate.is_none()) else { return };
        match item {
            Item::Frame(frame) => match pairing.handle_frame(now, frame, rng) {
                Ok(None) => {}
                Ok(Some(_)) => self.stranger_pairs(who),
                Err(_) => self.over(who, Fate::Failed),
            },
            Item::Text(text) => {
                if let Ok(FromRelay::PeerHere(_)) = text.parse() {
                    pairing.handle_peer_here(rng);
                }
            }
            Item::Ping => self.write(id, PONG, &[]),
            Item::Close(code, _) => self.stranger_refused(who, code),
            Item::Open | Item::Pong | Item::Up(_) => {}
        }
        self.service_stranger(who);
    }

    /// It was faster than the client, which hears so.
    fn stranger_pairs(&mut self, who: usize) {
        let stranger = self.stranger(who);
        assert!(stranger.knows, "it has paired, and does not know the code");
        let attempt = stranger.attempt;
        assert_eq!(self.paired, attempt, "the agent has paired another");
        assert!(!matches!(self.ends[0].stage, Stage::Session(_)), "one code pairs one client");
        self.counted.counts.lost_races += 1;
        // It stays, and is heard of no more.
        self.stranger(who).fate = Some(Fate::Paired);
    }

    /// One of the refusals that docs/protocol.md names.
    fn stranger_refused(&mut self, who: usize, code: u16) {
        let late = self.stranger(who).late;
        assert!(!late || code == close::NO_SESSION, "it came too late, and hears {code}");
        let counts = &mut self.counted.counts;
        match code {
            close::REFUSED => counts.refused += 1,
            close::NO_SESSION => counts.spent += 1,
            close::REPLACED => counts.supplanted += 1,
            close::SILENT | close::EXPIRED | close::RESTART | close::TOO_MANY => {}
            // The other side's answer to its own.
            1000 => {}
            _ => panic!("a stranger hears {code}"),
        }
        self.over(who, Fate::Closed(code));
    }

    fn over(&mut self, who: usize, fate: Fate) {
        let stranger = self.stranger(who);
        stranger.fate.get_or_insert(fate);
        if let Some(id) = stranger.socket {
            self.write(id, CLOSE, &1000_u16.to_be_bytes());
        }
    }

    pub(super) fn service_stranger(&mut self, who: usize) {
        let now = self.now;
        let stranger = self.stranger(who);
        let Some(pairing) = stranger.pairing.as_mut().filter(|_| stranger.fate.is_none()) else { return };
        let silent = pairing.handle_timeout(now).is_err();
        let frames: Vec<_> = std::iter::from_fn(|| pairing.poll_transmit()).collect();
        if let Some(id) = stranger.socket {
            frames.iter().for_each(|frame| self.write(id, BINARY, frame));
        }
        if silent {
            self.over(who, Fate::Failed);
        }
    }

    /// Somebody tries many nameplates: is told when to ask again, and nobody else is.
    pub(super) fn guess(&mut self) {
        if self.down {
            return;
        }
        let (address, begins) = (self.another_address(), self.random_delay(10 * SECOND));
        let first = self.relay.claim(self.now, address, &self.nameplate, &mut self.rng);
        assert!(!matches!(first, Err(ClaimError::TooMany(_))), "it asks for the first time");
        self.schedule(begins, Ev::AskMuch(self.next_address, self.relay.starts()));
    }

    pub(super) fn ask_much(&mut self, n: u32, starts: u32) {
        if self.down {
            return;
        }
        let (now, before) = (self.now, usize::from(starts == self.relay.starts()));
        let mut ask = |address| self.relay.claim(now, address, &self.nameplate, &mut self.rng);
        let answered = (0..).take_while(|_| !matches!(ask(address(n)), Err(ClaimError::TooMany(_)))).count();
        // A relay that was started again since its first has not heard of that.
        assert_eq!(before + answered, API_REQUESTS_PER_MINUTE as usize);
        let Err(ClaimError::TooMany(wait)) = ask(address(n)) else { panic!("it asks too often") };
        let other = self.another_address();
        let other = self.relay.claim(now, other, &self.nameplate, &mut self.rng);
        assert!(!matches!(other, Err(ClaimError::TooMany(_))), "another address has asked once");
        self.counted.counts.too_many_requests += 1;
        self.schedule(Duration::from_secs(retry_after(wait)), Ev::AskAgain(n));
    }

    pub(super) fn ask_again(&mut self, n: u32) {
        let answer = self.relay.claim(self.now, address(n), &self.nameplate, &mut self.rng);
        assert!(!matches!(answer, Err(ClaimError::TooMany(_))), "it has waited as it was told");
    }

    /// An end's owner makes as many sessions as it may, perhaps while a restarted relay knows nothing of this one yet.
    pub(super) fn crowd(&mut self, who: usize) {
        if self.down {
            return;
        }
        if self.relay.knows_pairing() && self.rng.random_ratio(1, 2) {
            for id in self.relay.sockets() {
                self.cut(id, true, false);
            }
            self.relay.restart(self.now, None);
        }
        let (now, owner) = (self.now, self.ends[who].owner);
        let room = self.relay.room(owner);
        for made in 0..room {
            let made_one = self.relay.create_idle(now, owner, &mut self.rng);
            assert!(made_one.is_ok(), "{owner:?} has made {made}, and has room for {room}: {made_one:?}");
        }
        let refused = self.relay.create_idle(now, owner, &mut self.rng).expect_err("an owner has more than it may");
        let expected = match owner {
            Owner::Address(_) => CreateError::Address,
            Owner::Organisation(_) => CreateError::Organisation,
        };
        assert_eq!(refused, expected);
        let other = self.another_address();
        let other = self.relay.create_idle(now, other.into(), &mut self.rng);
        assert!(other.is_ok(), "another owner has its own room: {other:?}");
        self.counted.counts.crowds += 1;
        self.counted.counts.organisations += u64::from(expected == CreateError::Organisation);
        self.crowd += 1;
        self.crowd_owner = Some(owner);
        self.schedule(refused.retry_after() + TICK + SECOND, Ev::CreateAgain(self.crowd));
    }

    pub(super) fn create_again(&mut self, n: u32) {
        // Nobody else has filled the room meanwhile.
        if let Some(owner) = self.crowd_owner.filter(|_| n == self.crowd) {
            let again = self.relay.create_idle(self.now, owner, &mut self.rng);
            assert!(again.is_ok(), "it has waited as it was told: {again:?}");
        }
    }

    /// What the client hears where another one has paired.
    pub(super) fn judge_loss(&self, code: Option<u16>) {
        let won = self.strangers.iter().any(|stranger| stranger.fate == Some(Fate::Paired));
        if let Some(code) = code.filter(|code| won && verdict(Some(*code), Of::ClientPairing).is_final()) {
            let known = [close::REFUSED, close::NO_SESSION, close::REPLACED, close::EXPIRED, close::TOO_MANY];
            assert!(known.contains(&code), "another client has paired, and this one hears {code}");
        }
    }
}
