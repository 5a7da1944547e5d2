//! Going on over another transport: what is lost, replayed, forged or late on the way changes nothing.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mykube_tunnel::{
    Config, Event, Session, SessionError, Time,
    pairing::{AgentEvent, ClientFailure, ClientPairing, Transmit},
    protocol::{Role, frame, limits},
    session::{ReadState, Write},
};
use rand::{RngExt as _, rngs::StdRng};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{
    adversary::{self, at},
    pair::{CODE, MS, SECOND, code, established, here, rng, session_id},
    second::{self, Attached, Keys, SecondAgent, second_client},
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

/// Everything an end can say, step by step; both ends' words are dropped after so many frames of one of them.
fn cut_after(frames: usize, of: Role) -> bool {
    let mut two = Two::new(Config::default());
    let (mut left, mut cut) = (frames, false);
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
                if !cut {
                    two.read(Role::Agent, a);
                }
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
    let mut got = two.read(Role::Agent, a).0;
    two.attach();
    got.extend(two.read(Role::Agent, a).0);
    let now = two.now;
    two.agent.finish(now, a);
    two.exchange();
    assert!(got.is_empty() || payload.ends_with(&got), "a part of it was read before the cut");
    assert_eq!(two.read(Role::Agent, a).1, ReadState::Eof);
    let welcomes = |events: Vec<Event>| events.iter().filter(|event| matches!(event, Event::Welcome(_))).count();
    let events = two.events(Role::Client);
    assert_eq!(events.iter().filter(|event| **event == Event::Opened { id: b, target: None }).count(), 1);
    assert_eq!(welcomes(events), 1);
    assert_eq!(two.read(Role::Client, b), (b"short".to_vec(), ReadState::Failed("enough".into())));
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
fn every_kind_of_message_is_sent_again_once_and_in_order() {
    // The peer is the test: it sees the messages themselves.
    let (mut session, keys, mut rng) = against_client();
    let id = session.open(at(1), Some("x".into())).unwrap();
    session.write(at(1), id, Bytes::from_static(b"data"));
    session.finish(at(1), id);
    session.release(at(1), id, Some("over"));
    session.bye("bye");
    let said = |session: &mut Session, secret: &[u8], mut seq: u64| {
        let mut messages = Vec::new();
        while let Some(frame) = session.poll_transmit(at(1)).unwrap() {
            messages.extend(crate::hostile::parse(&second::open(secret, seq, &frame).unwrap()));
            seq += 1;
        }
        messages.retain(|(kind, _)| *kind != frame::kind::UPKEEP);
        messages
    };
    // `bye` goes last, and what was not sent before it is not sent at all.
    let first = said(&mut session, &keys.e("traffic c"), 1);
    let count = first.len() as u64;
    assert!(count >= 1 && first.last() == Some(&crate::hostile::text("bye:bye")), "{first:?}");
    for received in (0..=count).rev() {
        let mut again = Vec::new();
        for _ in 0..2 {
            let attached = attach_as_agent(&mut session, &keys, &mut rng, at(1));
            // The agent says it has this much; nothing is acknowledged by that.
            let body = 0_u64.to_be_bytes();
            session.handle_frame(at(1), second_first(&attached.agent(), &body)).unwrap();
            again = said(&mut session, &attached.client(), 1);
            assert_eq!(again, first, "from the first one on, each time");
        }
        let _ = (received, again);
    }
    // What the agent has is not sent again.
    let attached = attach_as_agent(&mut session, &keys, &mut rng, at(1));
    session.handle_frame(at(1), second_first(&attached.agent(), &1_u64.to_be_bytes())).unwrap();
    assert_eq!(said(&mut session, &attached.client(), 1), first[1..]);
}

fn second_first(secret: &[u8], body: &[u8]) -> BytesMut {
    BytesMut::from(&second::seal(secret, 0, &[(1, body)])[..])
}

/// A client whose agent is the test.
fn against_client() -> (Session, Keys, StdRng) {
    let mut rng = rng(9);
    let agent = SecondAgent::new(&mut rng, session_id(), DIGITS);
    let (r, hello) = (agent.r, agent.hello.clone());
    let mut client = ClientPairing::new(at(0), session_id(), code(CODE), false);
    client.handle_frame(at(0), BytesMut::from(&hello[..]), &mut rng).unwrap();
    let keys = agent.keys(&client.poll_transmit().unwrap());
    let proof = [&r[..], &keys.tag_agent(&r)].concat();
    let answer = second::seal(&keys.e("traffic a"), 0, &[(1, &proof)]);
    let established = client.handle_frame(at(0), BytesMut::from(&answer[..]), &mut rng).unwrap().unwrap();
    (Session::new(at(1), *established, Config::default()), keys, rng)
}

/// An agent whose client is the test.
fn against_agent() -> (Session, Keys, StdRng) {
    let mut rng = rng(9);
    let mut agent = adversary::agent();
    let hello = adversary::greet(&mut agent, at(0), 1, &mut rng);
    let (hello, keys) = second_client(&mut rng, session_id(), DIGITS, &hello);
    agent.handle_frame(at(0), BytesMut::from(&hello[..]));
    let tag = second::seal(&keys.e("traffic c"), 0, &[(1, &keys.tag_client())]);
    agent.handle_frame(at(0), BytesMut::from(&tag[..]));
    let established = adversary::did(&mut agent).paired.expect("the code is right");
    (Session::new(at(1), *established, Config::default()), keys, rng)
}

fn only_frame(session: &mut Session, now: Time) -> BytesMut {
    let frame = session.poll_transmit(now).unwrap().expect("a frame");
    assert_eq!(session.poll_transmit(now).unwrap(), None);
    frame
}

fn public_in(frame: &[u8]) -> PublicKey {
    let key: [u8; 32] = frame[frame.len() - 64..frame.len() - 32].try_into().unwrap();
    PublicKey::from(key)
}

/// The test as the agent, up to the client's first record.
fn attach_as_agent(client: &mut Session, keys: &Keys, rng: &mut StdRng, now: Time) -> Attached {
    client.handle_peer_here(now, rng);
    let request = only_frame(client, now);
    let secret = StaticSecret::from(rng.random::<[u8; 32]>());
    let n = u64::from_be_bytes(request[17..25].try_into().unwrap());
    let answer = keys.attach_agent(&request, n, PublicKey::from(&secret).as_bytes());
    let attached = keys.attached(&request, &answer, secret.diffie_hellman(&public_in(&request)).as_bytes());
    client.handle_attach(now, &answer, rng);
    let first = only_frame(client, now);
    assert!(second::open(&attached.client(), 0, &first).is_some());
    attached
}

/// The test as the client: the agent's answer and the keys, if it answers.
fn ask_agent(agent: &mut Session, keys: &Keys, n: u64, rng: &mut StdRng) -> Option<(Vec<u8>, BytesMut, Attached)> {
    let secret = StaticSecret::from(rng.random::<[u8; 32]>());
    let request = keys.attach_client(&session_id(), n, PublicKey::from(&secret).as_bytes());
    agent.handle_attach(at(1), &request, rng);
    let answer = agent.poll_transmit(at(1)).unwrap().filter(|frame| frame[0] == frame::ATTACH_AGENT)?;
    let attached = keys.attached(&request, &answer, secret.diffie_hellman(&public_in(&answer)).as_bytes());
    Some((request, answer, attached))
}

fn quiet(agent: &mut Session) {
    while agent.poll_transmit(at(1)).unwrap().is_some() {}
    agent.handle_transport_lost(at(1));
}

#[test]
fn a_repeat_is_answered_alike_and_an_older_question_not_at_all() {
    let (mut agent, keys, mut rng) = against_agent();
    quiet(&mut agent);
    let (request, answer, old) = ask_agent(&mut agent, &keys, 3, &mut rng).expect("an answer");
    for _ in 0..3 {
        agent.handle_attach(at(1), &request, &mut rng);
        agent.handle_attach(at(1), &request, &mut rng);
        assert_eq!(only_frame(&mut agent, at(1)), answer, "the same bytes, and once however often it was asked");
    }
    for n in [0, 1, 2, 3] {
        assert!(ask_agent(&mut agent, &keys, n, &mut rng).is_none(), "{n}, with another key");
    }
    // The newest pending one wins.
    let (newer_request, _, new) = ask_agent(&mut agent, &keys, 5, &mut rng).expect("an answer");
    agent.handle_attach(at(1), &request, &mut rng);
    assert_eq!(agent.poll_transmit(at(1)).unwrap(), None);
    agent.handle_frame(at(1), second_first(&old.client(), &0_u64.to_be_bytes())).unwrap();
    assert!(!agent.is_attached());
    agent.handle_frame(at(1), second_first(&new.client(), &0_u64.to_be_bytes())).unwrap();
    assert!(agent.is_attached() && agent.attaches() == 5 && agent.poll_event() == Some(Event::Back));
    quiet(&mut agent);
    // Nothing up to the last confirmed one, its own request included.
    agent.handle_attach(at(1), &newer_request, &mut rng);
    assert_eq!(agent.poll_transmit(at(1)).unwrap(), None);
    for n in [4, 5] {
        assert!(ask_agent(&mut agent, &keys, n, &mut rng).is_none());
    }
    assert!(ask_agent(&mut agent, &keys, 6, &mut rng).is_some());
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
fn keys_of_small_order_are_not_answered() {
    let (mut agent, keys, mut rng) = against_agent();
    quiet(&mut agent);
    for small in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        agent.handle_attach(at(1), &keys.attach_client(&session_id(), 1, &small), &mut rng);
        assert_eq!(agent.poll_transmit(at(1)).unwrap(), None);
    }
    let (mut client, keys, mut rng) = against_client();
    quiet(&mut client);
    client.handle_peer_here(at(1), &mut rng);
    let request = only_frame(&mut client, at(1));
    client.handle_attach(at(1), &keys.attach_agent(&request, 1, &[0; 32]), &mut rng);
    assert_eq!(client.poll_transmit(at(1)).unwrap(), None);
    // Another n than it asked is no answer.
    let public = PublicKey::from(&StaticSecret::from([9; 32]));
    client.handle_attach(at(1), &keys.attach_agent(&request, 2, public.as_bytes()), &mut rng);
    assert_eq!(client.poll_transmit(at(1)).unwrap(), None);
}

#[test]
fn what_the_peer_claims_to_have_is_checked() {
    // The agent has sent one message; the client acknowledged none, or that one.
    for (acknowledged, claimed, right) in
        [(0, 0, true), (0, 1, true), (0, 2, false), (1, 0, false), (1, 1, true), (1, u64::MAX, false)]
    {
        let (mut agent, keys, mut rng) = against_agent();
        agent.open(at(1), None).unwrap();
        while agent.poll_transmit(at(1)).unwrap().is_some() {}
        let ack = format!("ack:{acknowledged}");
        let record = second::seal(&keys.e("traffic c"), 1, &[(4, ack.as_bytes())]);
        agent.handle_frame(at(1), BytesMut::from(&record[..])).unwrap();
        quiet(&mut agent);
        let (_, _, attached) = ask_agent(&mut agent, &keys, 1, &mut rng).unwrap();
        let result = agent.handle_frame(at(1), second_first(&attached.client(), &u64::to_be_bytes(claimed)));
        assert_eq!(result.is_ok(), right, "{acknowledged} {claimed}");
        assert!(right || matches!(result, Err(SessionError::Misbehaved(_))));
        // The same of an agent.
        let (mut client, keys, mut rng) = against_client();
        client.open(at(1), None).unwrap();
        while client.poll_transmit(at(1)).unwrap().is_some() {}
        let record = second::seal(&keys.e("traffic a"), 1, &[(4, ack.as_bytes())]);
        client.handle_frame(at(1), BytesMut::from(&record[..])).unwrap();
        quiet(&mut client);
        let attached = attach_as_agent(&mut client, &keys, &mut rng, at(1));
        let result = client.handle_frame(at(1), second_first(&attached.agent(), &u64::to_be_bytes(claimed)));
        assert_eq!(result.is_ok(), right, "{acknowledged} {claimed}");
    }
    for body in [&b""[..], &[0; 7], &[0; 9], &[0; 73]] {
        let (mut agent, keys, mut rng) = against_agent();
        quiet(&mut agent);
        let (_, _, attached) = ask_agent(&mut agent, &keys, 1, &mut rng).unwrap();
        let result = agent.handle_frame(at(1), second_first(&attached.client(), body));
        assert!(matches!(result, Err(SessionError::Misbehaved(_))), "no first record: {result:?}");
    }
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

/// A pairing whose last message is lost: the client's side, and the agent's session.
fn last_message_lost() -> (ClientPairing, Session, StdRng) {
    let mut rng = rng(3);
    let mut agent = adversary::agent();
    let mut client = ClientPairing::new(at(0), session_id(), code(CODE), false);
    agent.handle_relay(at(0), &here(1), &mut rng);
    let hello = adversary::did(&mut agent).frames.remove(0);
    client.handle_frame(at(0), hello, &mut rng).unwrap();
    while let Some(frame) = client.poll_transmit() {
        agent.handle_frame(at(0), BytesMut::from(frame));
    }
    let mut paired = None;
    while let Some(event) = agent.poll_event() {
        if let AgentEvent::Paired(established) = event {
            paired = Some(established);
        }
    }
    assert!(std::iter::from_fn(|| agent.poll_transmit()).any(|transmit| matches!(transmit, Transmit::Peer(_))));
    let mut agent = Session::new(at(0), *paired.unwrap(), Config::default());
    agent.handle_transport_lost(at(0));
    assert!(client.handle_lost(at(1)));
    (client, agent, rng)
}

#[test]
fn a_lost_last_message_of_the_handshake_comes_with_the_attach() {
    let (mut client, mut agent, mut rng) = last_message_lost();
    let id = agent.open(at(1), None).unwrap();
    // It gets lost again and again: the proof is kept.
    for n in 1..=4 {
        agent.handle_transport_lost(at(1));
        client.handle_lost(at(1));
        agent.handle_peer_here(at(1), &mut rng);
        client.handle_peer_here(&mut rng);
        let request = client.poll_transmit().unwrap();
        agent.handle_attach(at(1), &request, &mut rng);
        let answer = agent.poll_transmit(at(1)).unwrap().unwrap();
        assert!(client.handle_frame(at(1), answer, &mut rng).unwrap().is_none());
        agent.handle_frame(at(1), BytesMut::from(client.poll_transmit().unwrap())).unwrap();
        let first = agent.poll_transmit(at(1)).unwrap().unwrap();
        assert_eq!(first.len(), FIRST_WITH_PROOF);
        if n < 4 {
            continue;
        }
        // A replayed hello is a second handshake; anything else that does not open is dropped.
        assert!(client.handle_frame(at(1), BytesMut::from(&[5; 100][..]), &mut rng).unwrap().is_none());
        let established = client.handle_frame(at(1), first, &mut rng).unwrap().expect("the channel");
        let mut session = Session::new(at(1), *established, Config::default());
        assert_eq!(session.attaches(), 4);
        while let Some(frame) = agent.poll_transmit(at(1)).unwrap() {
            session.handle_frame(at(1), frame).unwrap();
        }
        assert_eq!(session.poll_event(), Some(Event::Opened { id, target: None }));
        // One more attach before the client has said anything else, and then one after it has.
        for proof in [true, false] {
            if !proof {
                while let Some(frame) = session.poll_transmit(at(2)).unwrap() {
                    agent.handle_frame(at(2), frame).unwrap();
                }
            }
            session.handle_transport_lost(at(2));
            agent.handle_transport_lost(at(2));
            session.handle_peer_here(at(2), &mut rng);
            agent.handle_attach(at(2), &only_frame(&mut session, at(2)), &mut rng);
            session.handle_attach(at(2), &only_frame(&mut agent, at(2)), &mut rng);
            agent.handle_frame(at(2), only_frame(&mut session, at(2))).unwrap();
            let first = agent.poll_transmit(at(2)).unwrap().unwrap();
            assert_eq!(first.len(), if proof { FIRST_WITH_PROOF } else { FIRST });
            session.handle_frame(at(2), first).unwrap();
            assert!(session.is_attached());
        }
    }
}

#[test]
fn a_proof_that_does_not_fit_is_refused() {
    for (spoilt, received) in
        [(None, 0), (Some(0), 0), (Some(31), 0), (Some(32), 0), (Some(63), 0), (None, 1), (Some(64), 0)]
    {
        let mut rng = rng(9);
        let agent = SecondAgent::new(&mut rng, session_id(), DIGITS);
        let (r, hello) = (agent.r, agent.hello.clone());
        let mut client = ClientPairing::new(at(0), session_id(), code(CODE), false);
        client.handle_frame(at(0), BytesMut::from(&hello[..]), &mut rng).unwrap();
        let keys = agent.keys(&client.poll_transmit().unwrap());
        client.handle_lost(at(1));
        client.handle_peer_here(&mut rng);
        let request = client.poll_transmit().unwrap();
        let secret = StaticSecret::from(rng.random::<[u8; 32]>());
        let answer = keys.attach_agent(&request, 1, PublicKey::from(&secret).as_bytes());
        let attached = keys.attached(&request, &answer, secret.diffie_hellman(&public_in(&request)).as_bytes());
        assert!(client.handle_frame(at(1), BytesMut::from(&answer[..]), &mut rng).unwrap().is_none());
        let mut body = [&u64::to_be_bytes(received)[..], &r, &keys.tag_agent(&r)].concat();
        match spoilt {
            // None at all.
            Some(64) => body.truncate(8),
            Some(at) => body[8 + at] ^= 1,
            None => {}
        }
        let result = client.handle_frame(at(1), second_first(&attached.agent(), &body), &mut rng);
        if spoilt.is_none() && received == 0 {
            assert!(result.unwrap().is_some());
        } else {
            assert!(matches!(result, Err(ClientFailure::Handshake(_))), "{spoilt:?} {received}");
            assert!(client.handle_frame(at(1), BytesMut::from(&answer[..]), &mut rng).unwrap().is_none(), "it is over");
        }
    }
    // The time for it is that of the ticket.
    let (mut client, _, mut rng) = last_message_lost();
    assert_eq!(client.poll_timeout(), Some(at(1) + limits::PAIR_TICKET_TTL));
    let hello = SecondAgent::new(&mut rng, session_id(), DIGITS).hello;
    assert_eq!(
        client.handle_frame(at(2), BytesMut::from(&hello[..]), &mut rng).err(),
        Some(ClientFailure::SecondHello)
    );
    let (mut client, _, _) = last_message_lost();
    assert_eq!(client.handle_timeout(at(31)), Err(ClientFailure::Silent));
    assert!(!client.handle_lost(at(32)));
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

/// Whether it is said that the peer is silent, by then.
fn silent_by(session: &mut Session, until: Time) -> Option<Time> {
    loop {
        let due = session.poll_timeout().filter(|due| *due <= until)?;
        session.handle_timeout(due);
        while session.poll_transmit(due).unwrap().is_some() {}
        while let Some(event) = session.poll_event() {
            if event == Event::Silent {
                return Some(due);
            }
        }
    }
}

#[test]
fn silence_is_noticed() {
    let settled = || {
        let mut two = Two::new(Config::default());
        two.exchange();
        two
    };
    // With something outstanding: a ping after 2 s, dead after 10.
    let mut two = settled();
    let id = two.open(Role::Client);
    two.write(Role::Client, id, b"x");
    let sent = two.now;
    two.frames(Role::Client);
    assert_eq!(silent_by(&mut two.client, sent + 1999 * MS), None);
    two.now = sent + limits::PROBE_AFTER;
    assert_eq!(two.frames(Role::Client).len(), 1, "a ping");
    assert_eq!(silent_by(&mut two.client, sent + 60 * SECOND), Some(sent + limits::DEAD_AFTER));
    assert!(!two.client.is_attached() && two.client.poll_transmit(two.now).unwrap().is_none());
    // Any word is life, and the count begins anew.
    let mut two = settled();
    let id = two.open(Role::Client);
    two.write(Role::Client, id, b"x");
    two.frames(Role::Client);
    two.pass(limits::PROBE_AFTER);
    two.frames(Role::Client);
    let alive = two.now;
    two.open(Role::Agent);
    two.carry(Role::Agent);
    assert_eq!(
        silent_by(&mut two.client, alive + 60 * SECOND),
        Some(alive + limits::DEAD_AFTER),
        "the data is still owed"
    );
    // A long round trip is waited for.
    let mut two = Two::new(Config::default());
    let ping = two.frames(Role::Client);
    two.pass(SECOND);
    ping.iter().for_each(|frame| two.hear(Role::Agent, frame).unwrap());
    two.carry(Role::Agent);
    two.pass(25 * MS);
    two.exchange();
    let id = two.open(Role::Client);
    two.write(Role::Client, id, b"x");
    let sent = two.now;
    two.frames(Role::Client);
    let first_ping = two.client.poll_timeout().unwrap();
    assert!(first_ping >= sent + SECOND, "{first_ping:?} after {sent:?}");
    // Idle: a ping after 15 s, dead after 20.
    let mut two = settled();
    let idle = two.client.poll_timeout().unwrap();
    assert!(idle.since(two.now) > 14 * SECOND && idle.since(two.now) <= limits::IDLE_PING);
    assert_eq!(silent_by(&mut two.client, two.now + 60 * SECOND), Some(idle + limits::PING_TIMEOUT));
    // After a jump of the clock: dead in two seconds, alive with any answer.
    let mut two = settled();
    let now = two.now;
    two.client.probe(now);
    assert!(two.client.is_probing());
    assert_eq!(silent_by(&mut two.client, now + 60 * SECOND), Some(now + limits::JUMP_TIMEOUT));
    let mut two = settled();
    let now = two.now;
    two.client.probe(now);
    two.exchange();
    assert!(!two.client.is_probing());
    assert_eq!(silent_by(&mut two.client, two.now + 14 * SECOND), None);
    // Without a transport nobody is silent.
    let mut two = settled();
    two.lose();
    let now = two.now;
    two.client.probe(now);
    assert!(!two.client.is_probing() && two.agent.poll_timeout().is_none());
}

#[test]
fn a_client_asks_again() {
    let mut two = Two::new(Config::default());
    two.exchange();
    two.lose();
    let (lost, mut rng) = (two.now, rng(1));
    // Told nothing, it asks after half a minute, and whoever says "gone" is not believed for longer.
    assert_eq!(two.client.poll_timeout(), Some(lost + limits::ATTACH_UNASKED));
    two.client.ask_again(lost + 29 * SECOND, &mut rng);
    assert!(!two.client.wants_transmit(lost + 29 * SECOND));
    two.client.ask_again(lost + 30 * SECOND, &mut rng);
    two.now = lost + 30 * SECOND;
    let first = two.frames(Role::Client);
    // Asked because the other end is there, it asks again after ten seconds, with another n and key.
    two.meet();
    let second = two.frames(Role::Client);
    let now = two.now;
    assert_eq!(two.client.poll_timeout(), Some(now + limits::ATTACH_RETRY));
    two.client.ask_again(now + limits::ATTACH_RETRY, &mut rng);
    two.now = now + limits::ATTACH_RETRY;
    let third = two.frames(Role::Client);
    let n = |frames: &[BytesMut]| (frames.len(), u64::from_be_bytes(frames[0][17..25].try_into().unwrap()));
    assert_eq!((n(&first), n(&second), n(&third)), ((1, 1), (1, 2), (1, 3)));
    assert!(first[0][25..57] != second[0][25..57] && second[0][25..57] != third[0][25..57]);
    two.hear(Role::Agent, &third[0]).unwrap();
    two.exchange();
    assert!(two.client.is_attached());
    // A session that is over asks nothing.
    two.client.bye("over");
    two.exchange();
    two.lose();
    two.meet();
    assert!(two.client.is_over() && two.frames(Role::Client).is_empty() && two.client.poll_timeout().is_none());
}

#[test]
fn five_bad_records_in_a_row_end_the_session_and_one_the_transport() {
    let bad = |two: &mut Two| {
        let now = two.now;
        two.agent.handle_frame(now, BytesMut::from(&[5; 40][..])).unwrap_err()
    };
    for attaching in [false, true] {
        let mut two = Two::new(Config::default());
        let id = two.open(Role::Client);
        two.exchange();
        for _ in 0..2 {
            for _ in 1..limits::BAD_RECORDS_MAX {
                assert!(matches!(bad(&mut two), SessionError::Record(_)));
                if attaching {
                    // Only the attach's own records get through.
                    two.lose();
                    two.meet();
                    two.carry(Role::Client);
                    two.carry(Role::Agent);
                    two.carry(Role::Client);
                    two.frames(Role::Agent);
                    assert!(two.agent.is_attached());
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
        assert!(audit.queued <= 4 * (256 + 16) * 1024 && audit.control <= limits::CONTROL_UNACKED_MAX, "{audit:?}");
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
    assert!(two.client.streams() <= limits::STREAMS_MAX);
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
        // Whoever has heard it asks for nothing any more; who is asked says what it has.
        assert_eq!(two.end(says).is_over(), says == Role::Client);
    }
}
