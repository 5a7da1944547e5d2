//! Going on over another transport: what is lost, replayed, forged or late on the way changes nothing.
//!
//! Over 500 lines because it is one list of faults of a transport, each with its set-up.

mod peer;
mod proof;
mod silence;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mykube_tunnel::{
    Config, Event, Session, SessionError, Time,
    protocol::{Role, frame, limits},
    session::{ReadState, Write},
};
use rand::rngs::StdRng;

use crate::{
    adversary::at,
    pair::{Line, MS, Pair, SECOND, established, rng},
};

const ROLES: [Role; 2] = [Role::Client, Role::Agent];
const DIGITS: &str = "48320417";
/// An attach's first record, and the agent's with its proof.
const FIRST: usize = 1 + 64 + 16;
const FIRST_WITH_PROOF: usize = 1 + 128 + 16;

/// Both ends, and every frame by hand.
struct Two {
    now: Time,
    rng: StdRng,
    client: Session,
    agent: Session,
    /// What each end has sent: client, agent.
    tape: [Vec<BytesMut>; 2],
}

impl Two {
    fn new(config: Config) -> Self {
        let (a, c) = established(1);
        let now = at(1);
        Self {
            now,
            rng: rng(5),
            client: Session::new(now, c, config),
            agent: Session::new(now, a, config),
            tape: Default::default(),
        }
    }

    fn end(&mut self, role: Role) -> &mut Session {
        match role {
            Role::Client => &mut self.client,
            Role::Agent => &mut self.agent,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// What an end has to say now.
    fn frames(&mut self, role: Role) -> Vec<BytesMut> {
        let now = self.now;
        let end = self.end(role);
        let frames: Vec<_> = std::iter::from_fn(|| end.poll_transmit(now).unwrap()).collect();
        self.tape[usize::from(role == Role::Agent)].extend(frames.iter().cloned());
        frames
    }

    fn hear(&mut self, role: Role, frame: &[u8]) -> Result<(), SessionError> {
        let (end, now, rng) = self.parts(role);
        match frame[0] {
            frame::ATTACH_CLIENT | frame::ATTACH_AGENT => {
                end.handle_attach(now, frame, rng);
                Ok(())
            }
            _ => end.handle_frame(now, BytesMut::from(frame)),
        }
    }

    fn parts(&mut self, role: Role) -> (&mut Session, Time, &mut StdRng) {
        let Self { client, agent, rng, now, .. } = self;
        (if role == Role::Client { client } else { agent }, *now, rng)
    }

    /// One end's words to the other; how many.
    fn carry(&mut self, from: Role) -> usize {
        let frames = self.frames(from);
        for frame in &frames {
            self.hear(from.peer(), frame).unwrap();
        }
        frames.len()
    }

    /// Until both have said everything, acknowledgements too.
    fn exchange(&mut self) {
        for _ in 0..2000 {
            let moved = self.carry(Role::Client) + self.carry(Role::Agent);
            self.pass(5 * MS);
            if moved == 0 && self.client.unacknowledged() + self.agent.unacknowledged() == 0 {
                return;
            }
        }
        panic!("it never comes to rest: {:?} {:?}", self.client.audit(), self.agent.audit());
    }

    fn lose(&mut self) {
        let now = self.now;
        self.client.handle_transport_lost(now);
        self.agent.handle_transport_lost(now);
    }

    fn meet(&mut self) {
        self.tell_here(Role::Client);
        self.tell_here(Role::Agent);
    }

    fn tell_here(&mut self, role: Role) {
        let (end, now, rng) = self.parts(role);
        end.handle_peer_here(now, rng);
    }

    fn attach(&mut self) {
        self.lose();
        self.meet();
        self.exchange();
        assert!(self.client.is_attached() && self.agent.is_attached());
    }

    fn events(&mut self, role: Role) -> Vec<Event> {
        let end = self.end(role);
        std::iter::from_fn(|| end.poll_event()).collect()
    }

    fn write(&mut self, role: Role, id: u32, payload: &[u8]) {
        let now = self.now;
        assert!(matches!(self.end(role).write(now, id, Bytes::copy_from_slice(payload)), Write::Taken { .. }));
    }

    fn read(&mut self, role: Role, id: u32) -> (Vec<u8>, ReadState) {
        let (now, mut chunks) = (self.now, Vec::new());
        let state = self.end(role).read(now, id, u64::MAX, &mut chunks);
        (chunks.concat(), state)
    }

    fn open(&mut self, role: Role) -> u32 {
        let now = self.now;
        self.end(role).open(now, None).unwrap()
    }
}

fn welcome() -> mykube_tunnel::protocol::channel::Welcome {
    serde_json::from_str(&format!(r#"{{"mode":"guarded","cluster":"c","ca":"{}"}}"#, "A".repeat(30_000))).unwrap()
}

/// Everything an end can say, step by step; both ends' words are dropped after a number of frames of one of them.
fn cut_after(frames: usize, of: Role) -> bool {
    let mut two = Two::new(Config::default());
    let (mut left, mut cut, mut got) = (frames, false, Vec::new());
    let (a, b) = (two.open(Role::Client), two.open(Role::Agent));
    let payload: Vec<u8> = (0..40_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    for step in 0..9 {
        let now = two.now;
        match step {
            0 => two.agent.welcome(&welcome()).unwrap(),
            1 => {
                two.write(Role::Client, a, &payload);
                two.write(Role::Agent, b, b"short");
            }
            2 => two.client.finish(now, a),
            3 => two.agent.finish(now, b),
            4 => {
                got.extend(two.read(Role::Agent, a).0);
                // Where it knows of it.
                two.client.write(now, b, Bytes::copy_from_slice(&payload[..9000]));
            }
            5 => two.client.finish(now, b),
            6 => two.agent.release(now, b, Some("enough")),
            _ => {}
        }
        two.pass(30 * MS);
        for from in ROLES {
            for frame in two.frames(from) {
                if from == of {
                    cut |= left == 0;
                    left = left.saturating_sub(1);
                }
                if !cut {
                    two.hear(from.peer(), &frame).unwrap();
                }
            }
        }
        if step == 3 && cut {
            // Lost early: the rest is said without a transport.
            two.lose();
        }
    }
    two.attach();
    got.extend(two.read(Role::Agent, a).0);
    let now = two.now;
    two.agent.finish(now, a);
    two.exchange();
    assert!(got == payload);
    assert_eq!(two.read(Role::Agent, a).1, ReadState::Eof);
    let welcomes = |events: Vec<Event>| events.iter().filter(|event| matches!(event, Event::Welcome(_))).count();
    let events = two.events(Role::Client);
    assert_eq!(events.iter().filter(|event| **event == Event::Opened { id: b, target: None }).count(), 1);
    assert_eq!(welcomes(events), 1);
    // It was ended before it was let go with a reason: what was ended is whole.
    assert_eq!(two.read(Role::Client, b), (b"short".to_vec(), ReadState::Eof));
    two.client.bye("done");
    two.lose();
    two.attach();
    assert!(two.events(Role::Agent).contains(&Event::Bye("done".into())) && two.client.is_over());
    cut
}

#[test]
fn a_transport_may_be_lost_after_any_frame() {
    for of in ROLES {
        let boundaries = (0..).take_while(|frames| cut_after(*frames, of)).count();
        assert!(boundaries >= 5, "{boundaries}");
    }
}

#[test]
fn no_byte_of_an_attach_frame_can_be_changed() {
    let mut two = Two::new(Config::default());
    two.exchange();
    two.lose();
    two.meet();
    let request = two.frames(Role::Client).remove(0);
    assert_eq!(request.len(), 1 + 16 + 8 + 32 + 32);
    for i in 1..request.len() {
        let mut bad = request.clone();
        bad[i] ^= 1;
        two.hear(Role::Agent, &bad).unwrap();
        two.hear(Role::Agent, &request[..i]).unwrap();
        assert!(two.frames(Role::Agent).is_empty(), "byte {i}");
    }
    let longer = [&request[..], &[0]].concat();
    two.hear(Role::Agent, &longer).unwrap();
    assert!(two.frames(Role::Agent).is_empty());
    two.hear(Role::Agent, &request).unwrap();
    let answer = two.frames(Role::Agent).remove(0);
    assert_eq!(answer.len(), 1 + 8 + 32 + 32);
    for i in 1..answer.len() {
        let mut bad = answer.clone();
        bad[i] ^= 1;
        two.hear(Role::Client, &bad).unwrap();
        two.hear(Role::Client, &answer[..i]).unwrap();
    }
    two.hear(Role::Client, &[&answer[..], &[0]].concat()).unwrap();
    assert!(two.frames(Role::Client).is_empty());
    // A frame of the other direction is none either.
    two.hear(Role::Client, &request).unwrap();
    two.hear(Role::Agent, &answer).unwrap();
    two.hear(Role::Client, &answer).unwrap();
    let first = two.frames(Role::Client);
    assert_eq!(first.iter().map(BytesMut::len).collect::<Vec<_>>(), [FIRST]);
    two.hear(Role::Client, &answer).unwrap();
    assert!(two.frames(Role::Client).is_empty(), "one first record for one answer, or a nonce is used twice");
    for i in 0..first[0].len() {
        let mut bad = first[0].clone();
        bad[i] ^= 1;
        let now = two.now;
        two.agent.handle_frame(now, bad).unwrap();
        assert!(!two.agent.is_attached());
    }
    two.hear(Role::Agent, &first[0]).unwrap();
    two.exchange();
    assert!(two.client.is_attached() && two.agent.is_attached());
}

impl Two {
    /// A stream with something of every attach in it, both ways.
    fn history() -> (Self, u32) {
        let mut two = Self::new(Config { rekey_records: 3, ..Config::default() });
        let id = two.open(Role::Client);
        for _ in 0..4 {
            two.write(Role::Client, id, b"up");
            two.exchange();
            two.write(Role::Agent, id, b"down");
            two.attach();
        }
        (two, id)
    }
}

#[test]
fn nothing_that_was_ever_sent_opens_again() {
    let (mut two, id) = Two::history();
    let tape = two.tape.clone();
    assert!(tape.iter().all(|frames| frames.len() > 20));
    let unchanged = |two: &mut Two| {
        let _ = ROLES.map(|role| two.events(role));
        ROLES.map(|role| {
            (two.end(role).audit().session_allowance, two.end(role).attaches(), two.end(role).is_attached())
        })
    };
    for detached in [false, true] {
        if detached {
            two.lose();
        }
        let before = unchanged(&mut two);
        for (from, frames) in ROLES.into_iter().zip(&tape) {
            // To the other end, and back to the end that sent it.
            for (to, old) in ROLES.into_iter().flat_map(|to| frames.iter().map(move |frame| (to, frame))) {
                let result = two.hear(to, old);
                let attach = old[0] != frame::RECORD;
                let expected = if attach || detached { Ok(()) } else { Err(true) };
                let is_record = |error| matches!(error, SessionError::Record(_) | SessionError::Forged);
                assert_eq!(result.map_err(is_record), expected, "{from} to {to}");
                assert_eq!(two.frames(Role::Agent).iter().filter(|f| f[0] != frame::RECORD).count(), 0, "no answer");
            }
        }
        assert_eq!(unchanged(&mut two), before);
    }
    two.write(Role::Client, id, b"last");
    two.attach();
    assert_eq!(two.read(Role::Agent, id).0, b"upupupuplast");
    assert_eq!(two.read(Role::Client, id).0, b"downdowndowndown");
}

#[test]
fn keys_change_across_attaches() {
    let mut two = Two::new(Config { rekey_records: 2, ..Config::default() });
    let id = two.open(Role::Client);
    let payload: Vec<u8> = (0..200_000_u32).map(|n| (n * 7 % 253) as u8).collect();
    two.write(Role::Client, id, &payload);
    let mut got = Vec::new();
    for lost in 0..40 {
        // Some arrives, some does not, the record with `rekey` among them.
        for (i, frame) in two.frames(Role::Client).iter().enumerate() {
            if i < lost % 7 {
                two.hear(Role::Agent, frame).unwrap();
            }
        }
        if lost % 3 == 0 {
            two.carry(Role::Agent);
        }
        two.lose();
        two.meet();
        for _ in 0..2 {
            two.carry(Role::Client);
            two.carry(Role::Agent);
        }
        if two.client.streams() == 1 && two.agent.streams() == 1 {
            got.extend(two.read(Role::Agent, id).0);
        }
    }
    two.exchange();
    got.extend(two.read(Role::Agent, id).0);
    two.exchange();
    got.extend(two.read(Role::Agent, id).0);
    assert!(got == payload);
    assert_eq!(two.client.attaches(), 40);
}

#[test]
fn a_first_record_may_be_lost() {
    for lost in ROLES {
        let mut two = Two::new(Config::default());
        let id = two.open(Role::Client);
        two.write(Role::Client, id, b"one");
        two.exchange();
        two.write(Role::Client, id, b"two");
        two.write(Role::Agent, id, b"three");
        for round in 1..=3 {
            two.lose();
            two.meet();
            two.carry(Role::Client);
            two.carry(Role::Agent);
            if lost == Role::Client {
                assert_eq!(two.frames(Role::Client).len(), 1);
                assert!(!two.agent.is_attached() && !two.client.is_attached());
            } else {
                two.carry(Role::Client);
                assert!(!two.frames(Role::Agent).is_empty());
                assert!(two.agent.is_attached() && !two.client.is_attached());
                assert_eq!(two.agent.attaches(), round);
            }
        }
        two.attach();
        assert_eq!(two.client.attaches(), 4);
        assert_eq!(
            (two.read(Role::Agent, id).0, two.read(Role::Client, id).0),
            (b"onetwo".to_vec(), b"three".to_vec())
        );
    }
}

#[test]
fn a_spurious_word_of_the_relay_in_the_middle_of_bulk_loses_nothing() {
    for told in [&[Role::Client][..], &[Role::Agent], &ROLES] {
        let mut two = Two::new(Config::default());
        let id = two.open(Role::Client);
        let payload: Vec<u8> = (0..150_000_u32).map(|n| (n * 11 % 241) as u8).collect();
        two.write(Role::Client, id, &payload);
        two.carry(Role::Client);
        two.write(Role::Agent, id, &payload);
        let under_way = [two.frames(Role::Client), two.frames(Role::Agent)];
        told.iter().for_each(|role| two.tell_here(*role));
        // What was on its way arrives all the same; it is read or dropped, and ends nothing.
        for (role, frames) in ROLES.into_iter().zip(under_way) {
            for frame in frames {
                two.hear(role.peer(), &frame).unwrap();
            }
        }
        if told == [Role::Agent] {
            // The client is attached and finds silence: its end of the transport goes.
            assert!(!two.agent.is_attached() && two.client.is_attached());
            two.frames(Role::Client);
            two.pass(11 * SECOND);
            two.frames(Role::Client);
            assert!(two.events(Role::Client).contains(&Event::Silent));
            two.meet();
        }
        two.exchange();
        assert!(two.client.is_attached() && two.agent.is_attached());
        let mut got = [Vec::new(), Vec::new()];
        for _ in 0..3 {
            got[0].extend(two.read(Role::Client, id).0);
            got[1].extend(two.read(Role::Agent, id).0);
            two.exchange();
        }
        assert!(got.iter().all(|got| *got == payload));
    }
}

#[test]
fn five_bad_records_in_a_row_end_the_session_and_one_the_transport() {
    let bad = |two: &mut Two| {
        let now = two.now;
        two.agent.handle_frame(now, BytesMut::from(&[5; 40][..])).unwrap_err()
    };
    // Only the attach's own records get through.
    let reattach = |two: &mut Two| {
        two.lose();
        two.meet();
        two.carry(Role::Client);
        two.carry(Role::Agent);
        two.carry(Role::Client);
        two.frames(Role::Agent);
        assert!(two.agent.is_attached());
    };
    for attaching in [false, true] {
        let mut two = Two::new(Config::default());
        let id = two.open(Role::Client);
        two.exchange();
        for _ in 0..2 {
            for _ in 1..limits::BAD_RECORDS_MAX {
                assert!(matches!(bad(&mut two), SessionError::Record(_)));
                if attaching {
                    reattach(&mut two);
                }
            }
            // One good record, and the count begins anew.
            if attaching {
                two.attach();
            }
            two.write(Role::Client, id, b"x");
            two.exchange();
        }
        for _ in 1..limits::BAD_RECORDS_MAX {
            bad(&mut two);
            if attaching {
                reattach(&mut two);
            }
        }
        assert_eq!(bad(&mut two), SessionError::Forged);
    }
    // Without a transport nothing is counted: those are an older transport's last words.
    let mut two = Two::new(Config::default());
    two.lose();
    let now = two.now;
    for _ in 0..20 {
        two.agent.handle_frame(now, BytesMut::from(&[5; 40][..])).unwrap();
    }
}

#[test]
fn what_is_kept_through_an_outage_is_bounded() {
    let mut two = Two::new(Config::default());
    let ids: Vec<u32> = (0..4).map(|_| two.open(Role::Client)).collect();
    two.exchange();
    let mut written = vec![0_usize; ids.len()];
    for round in 0..300 {
        // The application writes whenever it may; nothing is ever acknowledged.
        for (id, written) in ids.iter().zip(&mut written) {
            while !two.client.is_full(*id) {
                two.write(Role::Client, *id, &[7; 16_000]);
                *written += 16_000;
            }
        }
        let audit = two.client.audit();
        assert!(audit.kept_bytes <= 4 * limits::STREAM_WINDOW, "{audit:?}");
        assert!(audit.queued <= 4 * (512 + 16) * 1024 && audit.control <= limits::CONTROL_UNACKED_MAX, "{audit:?}");
        two.lose();
        two.pass(Duration::from_secs(60 * round));
        two.meet();
        // Every second time an attach stands and its transport dies with everything sent on it.
        if round % 2 == 0 {
            two.carry(Role::Client);
            two.carry(Role::Agent);
            two.carry(Role::Client);
            let first = two.frames(Role::Agent).remove(0);
            two.hear(Role::Client, &first).unwrap();
            assert!(two.client.is_attached() && !two.frames(Role::Client).is_empty());
        }
    }
    two.attach();
    for (id, written) in ids.iter().zip(&written) {
        let mut got = 0;
        while got < *written {
            let part = two.read(Role::Agent, *id).0.len();
            assert!(part > 0, "{got} of {written}");
            got += part;
            assert!(two.read(Role::Agent, *id).0.is_empty(), "which says that the part was consumed");
            two.exchange();
        }
    }
    // Opening and letting go of streams all the time is bounded as well.
    two.lose();
    let now = two.now;
    for _ in 0..10_000 {
        if let Ok(id) = two.client.open(now, None) {
            two.client.release(now, id, None);
        }
    }
    assert!(two.client.streams() <= limits::STREAMS_MAX_ASKED);
}

#[test]
fn what_is_sent_again_is_no_more_at_once_than_an_unknown_line_takes() {
    let mut pair = Pair::new(Line::new(25 * MS, 0));
    let id = pair.open(Role::Client);
    let (mut written, mut got) = (0, 0);
    while pair.client.session.audit().under_way < 200_000 {
        assert!(written < 100_000_000, "{:?}", pair.client.session.audit());
        while !pair.client.session.is_full(id) {
            pair.write(Role::Client, id, &[7; 16_000]);
            written += 16_000;
        }
        pair.run(5 * MS);
        got += pair.read(Role::Agent, id).0.len();
    }
    // A quick line is lost with all that was under way on it, and nobody knows the next one.
    let Pair { now, client, agent, .. } = pair;
    let mut two = Two { now, rng: rng(5), client: client.session, agent: agent.session, tape: Default::default() };
    two.lose();
    two.meet();
    while !two.client.is_attached() {
        two.carry(Role::Client);
        two.carry(Role::Agent);
    }
    two.carry(Role::Client);
    let audit = two.client.audit();
    assert!(audit.under_way <= audit.cap + limits::RECORD_PLAINTEXT_MAX as u64, "{audit:?}");
    while got < written {
        two.exchange();
        got += two.read(Role::Agent, id).0.len();
    }
}

#[test]
fn a_farewell_is_said_again_until_it_was_heard() {
    for says in ROLES {
        let mut two = Two::new(Config::default());
        two.exchange();
        two.lose();
        two.end(says).bye("night falls");
        for heard in [false, true] {
            two.lose();
            two.meet();
            two.carry(Role::Client);
            two.carry(Role::Agent);
            two.carry(Role::Client);
            let last = two.frames(Role::Agent);
            if heard || says == Role::Client {
                last.iter().for_each(|frame| two.hear(Role::Client, frame).unwrap());
            }
            if says == Role::Client {
                let bye = two.frames(Role::Client);
                if heard {
                    bye.iter().for_each(|frame| two.hear(Role::Agent, frame).unwrap());
                }
            }
            assert!(!two.end(says).is_over(), "nobody has said that it was heard");
            assert_eq!(two.end(says.peer()).is_over(), heard);
        }
        assert_eq!(two.events(says.peer()).last(), Some(&Event::Bye("night falls".into())));
        // The word that it was heard is lost.
        two.lose();
        two.meet();
        two.carry(Role::Client);
        two.carry(Role::Agent);
        two.carry(Role::Client);
        two.carry(Role::Agent);
        // An end that has heard the farewell asks for nothing any more; an end that is asked says what it has received.
        assert_eq!(two.end(says).is_over(), says == Role::Client);
    }
}
