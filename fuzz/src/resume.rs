//! Attach frames and transports: frames of a relay that does not have the keys, and two real ends that lose their transports at
//! any moment while it replays, drops and spoils frames.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mykube_tunnel::{
    Config, Event, Session, SessionError, Time,
    protocol::{Role, frame},
    session::ReadState,
    test_api,
};
use rand::{SeedableRng, rngs::StdRng};

fn end(role: Role, config: Config) -> Session {
    Session::new(Time::default(), test_api::established(role, [1; 32], [2; 32]), config)
}

/// A frame made without the keys: no end answers it, whatever state it is in.
fn foreign(role: Role, data: &[u8]) {
    let (now, rng) = (Time::default(), &mut StdRng::seed_from_u64(1));
    for asked in [false, true] {
        let mut session = end(role, Config::default());
        if asked {
            session.handle_peer_here(now, rng);
        } else {
            session.handle_transport_lost(now);
        }
        while session.poll_transmit(now).is_ok_and(|frame| frame.is_some()) {}
        session.handle_attach(now, data, rng);
        assert!(session.handle_frame(now, BytesMut::from(data)).is_ok(), "without a transport nothing is counted");
        assert!(session.poll_transmit(now) == Ok(None) && session.poll_event().is_none());
        assert!(!session.is_attached() && session.attaches() == 0);
    }
}

pub(super) fn attach_at_agent(data: &[u8]) {
    foreign(Role::Agent, data);
}

pub(super) fn attach_at_client(data: &[u8]) {
    foreign(Role::Client, data);
}

struct World {
    now: Time,
    rng: StdRng,
    /// Client, agent.
    ends: [Session; 2],
    lines: [Vec<BytesMut>; 2],
    tape: Vec<BytesMut>,
    written: [u64; 2],
    read: [u64; 2],
    known: bool,
    spoilt: u32,
}

fn byte(who: usize, at: u64) -> u8 {
    (at * 31 + at / 251 + who as u64 * 7) as u8
}

/// Each operation is two bytes: its kind, and the end, the frame or an amount.
pub(super) fn transports(data: &[u8]) {
    let config = Config { rekey_records: 5, ..Config::default() };
    let mut world = World {
        now: Time::default(),
        rng: StdRng::seed_from_u64(1),
        ends: [end(Role::Client, config), end(Role::Agent, config)],
        lines: Default::default(),
        tape: Vec::new(),
        written: [0; 2],
        read: [0; 2],
        known: false,
        spoilt: 0,
    };
    if world.ends[0].open(world.now, None) != Ok(1) {
        return;
    }
    for op in data.chunks_exact(2).take(400) {
        if !world.operate(op[0], op[1]) {
            return;
        }
    }
    world.settle();
}

impl World {
    /// Carries out one operation; returns whether the session goes on.
    fn operate(&mut self, what: u8, much: u8) -> bool {
        let (who, now) = (usize::from(much & 1), self.now);
        match what % 12 {
            0 => self.ends[who].handle_transport_lost(now),
            1 => self.ends[who].handle_peer_here(now, &mut self.rng),
            2 => self.meet(),
            3 => self.lines[who].clear(),
            4 => {
                let len = u64::from(much) * u64::from(much) / 8 + 1;
                if (who == 0 || self.known) && !self.ends[who].is_full(1) {
                    let payload: Bytes = (0..len).map(|n| byte(who, self.written[who] + n)).collect();
                    self.ends[who].write(now, 1, payload);
                    self.written[who] += len;
                }
            }
            5 => self.read(who),
            6 => {
                self.now = now + Duration::from_millis(u64::from(much) * u64::from(much));
                self.ends[who].handle_timeout(self.now);
                self.ends[who].ask_again(self.now, &mut self.rng);
            }
            7 => self.ends[who].probe(now),
            8 => {
                if let Some(old) = self.tape.get(usize::from(much)).cloned() {
                    return self.deliver(who, old, true);
                }
            }
            9 => {
                let Some(frame) = self.lines[1 - who].first_mut() else { return true };
                let at = usize::from(much) % frame.len();
                frame[at] ^= 1 << (much % 8);
                self.spoilt += 1;
            }
            _ => {
                self.transmit(who);
                for frame in std::mem::take(&mut self.lines[who]).into_iter().take(usize::from(much) / 8 + 1) {
                    if !self.deliver(1 - who, frame, self.spoilt > 0) {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn meet(&mut self) {
        for who in 0..2 {
            self.lines[who].clear();
            self.ends[who].handle_peer_here(self.now, &mut self.rng);
        }
    }

    fn transmit(&mut self, who: usize) {
        while let Some(frame) = self.ends[who].poll_transmit(self.now).expect("an honest peer ends nothing") {
            if self.tape.len() < 256 {
                self.tape.push(frame.clone());
            }
            self.lines[who].push(frame);
        }
    }

    fn deliver(&mut self, to: usize, frame: BytesMut, tampered: bool) -> bool {
        if matches!(frame.first(), Some(&(frame::ATTACH_CLIENT | frame::ATTACH_AGENT))) {
            self.ends[to].handle_attach(self.now, &frame, &mut self.rng);
            return true;
        }
        match self.ends[to].handle_frame(self.now, frame) {
            Ok(()) => {}
            // Dropped frames leave a gap, as no real transport does: it is lost.
            Err(SessionError::Record(_)) => self.ends[to].handle_transport_lost(self.now),
            Err(SessionError::Forged) => return false,
            Err(error) => panic!("{error} (tampered with: {tampered})"),
        }
        while let Some(event) = self.ends[to].poll_event() {
            match event {
                Event::Opened { id: 1, .. } => assert!(!std::mem::replace(&mut self.known, true), "opened twice"),
                Event::Readable(_) | Event::Writable(_) | Event::Back | Event::Silent => {}
                other => panic!("{other:?}"),
            }
        }
        true
    }

    fn read(&mut self, who: usize) {
        if who == 1 && !self.known {
            return;
        }
        let mut chunks = Vec::new();
        let state = self.ends[who].read(self.now, 1, u64::MAX, &mut chunks);
        assert_eq!(state, ReadState::Open, "nobody ended it");
        for got in chunks.iter().flatten() {
            assert_eq!(*got, byte(1 - who, self.read[who]), "at {}", self.read[who]);
            self.read[who] += 1;
        }
        assert!(self.read[who] <= self.written[1 - who]);
    }

    /// Over a transport without faults, everything arrives.
    fn settle(&mut self) {
        self.meet();
        for _ in 0..4000 {
            self.now = self.now + Duration::from_millis(10);
            for who in 0..2 {
                self.ends[who].handle_timeout(self.now);
                self.transmit(who);
                for frame in std::mem::take(&mut self.lines[who]) {
                    if !self.deliver(1 - who, frame, false) {
                        return;
                    }
                }
                self.read(who);
            }
            let kept = self.ends.iter().map(Session::unacknowledged).sum::<usize>();
            if kept == 0 && self.read == [self.written[1], self.written[0]] {
                return;
            }
        }
        panic!("{:?} of {:?}: {:?}", self.read, self.written, self.ends);
    }
}
