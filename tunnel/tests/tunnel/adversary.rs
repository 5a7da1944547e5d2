//! Every attack on pairing and handshake that the design names. The relay is the attacker's.
//!
//! Over 500 lines because it is one list of attacks, each with its set-up.

use std::time::Duration;

use bytes::BytesMut;
use mykube_tunnel::{
    Established, HandshakeError, Time,
    pairing::{AgentEvent, AgentPairing, ClientFailure, ClientPairing, Spent, Transmit},
    protocol::{FromAgent, FromRelay, PairingCode, Secret, SessionId, limits, relay_text::Peer},
};
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::{
    hostile::Raw,
    pair::{CODE, attempt, code, here, peer_frame, rng, session_id},
    second::{self, SecondAgent, bytes_of, frame_of, json_of, second_client, text_of},
};

const DIGITS: &str = "48320417";
const TTL: Duration = limits::CODE_TTL;

pub(crate) fn at(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

pub(crate) fn agent() -> AgentPairing {
    AgentPairing::new(at(0), session_id(), code(CODE), false, TTL)
}

fn client(typed: &str) -> ClientPairing {
    ClientPairing::new(at(0), session_id(), code(typed), false)
}

/// What the agent did: texts to the relay, frames to the peer, events.
#[derive(Default, Debug)]
pub(crate) struct Did {
    pub(crate) texts: Vec<FromAgent>,
    pub(crate) frames: Vec<BytesMut>,
    pub(crate) refused: Vec<(HandshakeError, u32)>,
    pub(crate) spent: Option<Spent>,
    pub(crate) paired: Option<Box<Established>>,
}

pub(crate) fn did(agent: &mut AgentPairing) -> Did {
    let mut did = Did::default();
    while let Some(transmit) = agent.poll_transmit() {
        match transmit {
            Transmit::Relay(text) => did.texts.push(text),
            Transmit::Peer(frame) => did.frames.push(BytesMut::from(frame)),
        }
    }
    while let Some(event) = agent.poll_event() {
        match event {
            AgentEvent::Attempt => {}
            AgentEvent::Refused { why, left } => did.refused.push((why, left)),
            AgentEvent::Spent(spent) => did.spent = Some(spent),
            AgentEvent::Paired(established) => did.paired = Some(established),
        }
    }
    did
}

pub(crate) fn greet(agent: &mut AgentPairing, now: Time, n: u8, rng: &mut StdRng) -> BytesMut {
    agent.handle_relay(now, &here(n), rng);
    let mut did = did(agent);
    assert_eq!(did.frames.len(), 1, "a hello and nothing else: {did:?}");
    did.frames.remove(0)
}

/// What a client with this code answers to a hello: its hello and its record.
pub(crate) fn answer(typed: &str, hello: &[u8], rng: &mut StdRng) -> (ClientPairing, BytesMut, BytesMut) {
    let mut client = client(typed);
    client.handle_frame(at(0), BytesMut::from(hello), rng).unwrap();
    let hello = BytesMut::from(client.poll_transmit().unwrap());
    let record = BytesMut::from(client.poll_transmit().unwrap());
    assert!(client.poll_transmit().is_none());
    (client, hello, record)
}

pub(crate) fn misbehaved(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::Misbehaved(what) => what,
        other => panic!("{other:?}"),
    }
}

/// The client's answer to a hello_agent, honest or not.
pub(crate) fn client_says(hello: &[u8]) -> Result<(), HandshakeError> {
    let mut client = client(CODE);
    let result = client.handle_frame(at(0), BytesMut::from(hello), &mut rng(9));
    assert!(result.is_ok() == client.has_shown_tag(), "a refused hello costs no tag");
    assert!(result.is_ok() || client.poll_transmit().is_none(), "nothing is sent after a hello that is refused");
    match result {
        Ok(_) => Ok(()),
        Err(ClientFailure::Handshake(why)) => Err(why),
        Err(other) => panic!("{other:?}"),
    }
}

/// The agent's answer to what `change` makes of an honest hello_client.
pub(crate) fn agent_says(change: impl FnOnce(&mut Value)) -> Result<(), HandshakeError> {
    agent_says_to_frame(|hello| {
        let mut value = json_of(hello);
        change(&mut value);
        frame_of(2, &value)
    })
}

pub(crate) fn agent_says_to_frame(change: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<(), HandshakeError> {
    let (mut agent, rng) = (agent(), &mut rng(1));
    let hello = greet(&mut agent, at(0), 1, rng);
    let (_, hello, _) = answer(CODE, &hello, rng);
    agent.handle_frame(at(0), BytesMut::from(&change(&hello)[..]));
    let did = did(&mut agent);
    assert!(did.frames.is_empty() && did.paired.is_none());
    match &did.refused[..] {
        [] => Ok(()),
        [(why, left)] => {
            assert_eq!((*left, did.texts), (3, vec![FromAgent::Refused(attempt(1))]), "a bad hello is no wrong secret");
            Err(why.clone())
        }
        more => panic!("{more:?}"),
    }
}

pub(crate) fn hello_agent(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = json_of(&greet(&mut agent(), at(0), 1, &mut rng(1)));
    change(&mut value);
    frame_of(1, &value)
}

#[test]
fn two_implementations_agree() {
    let rng = &mut rng(2);
    // Ours as the agent.
    let mut agent = agent();
    let hello = greet(&mut agent, at(0), 1, rng);
    let (hello_client, keys) = second_client(rng, session_id(), DIGITS, &hello);
    agent.handle_frame(at(0), BytesMut::from(&hello_client[..]));
    let record = second::seal(&keys.e("traffic c"), 0, &[(1, &keys.tag_client())]);
    agent.handle_frame(at(0), BytesMut::from(&record[..]));
    let mut agent_did = did(&mut agent);
    assert_eq!(agent_did.texts, [FromAgent::Paired(attempt(1))]);
    let body = second::handshake_body(&second::open(&keys.e("traffic a"), 0, &agent_did.frames.remove(0)).unwrap());
    let (r, tag) = body.split_at(32);
    assert_eq!(tag, keys.tag_agent(r));
    assert_eq!(agent_did.paired.unwrap().words, keys.words(r));

    // Ours as the client.
    let other = SecondAgent::new(rng, session_id(), DIGITS);
    let r = other.r;
    let (mut client, hello_client, record) = answer(CODE, &other.hello, rng);
    let keys = other.keys(&hello_client);
    assert_eq!(second::handshake_body(&second::open(&keys.e("traffic c"), 0, &record).unwrap()), keys.tag_client());
    let body = [&r[..], &keys.tag_agent(&r)].concat();
    let record = second::seal(&keys.e("traffic a"), 0, &[(1, &body)]);
    let established = client.handle_frame(at(0), BytesMut::from(&record[..]), rng).unwrap().unwrap();
    assert_eq!(established.words, keys.words(&r));
}

#[test]
fn the_agent_shows_nothing_of_its_keys_before_it_has_seen_the_tag() {
    let (mut agent, rng) = (agent(), &mut rng(3));
    let hello = greet(&mut agent, at(0), 1, rng);
    let (_, hello_client, record) = answer(CODE, &hello, rng);
    agent.handle_frame(at(0), hello_client);
    let silent = did(&mut agent);
    assert!(silent.frames.is_empty() && silent.texts.is_empty(), "hello_client is not answered: {silent:?}");
    // Time passes, the client hangs up: still nothing but text for the relay.
    let mut gone = self::agent();
    let hello = greet(&mut gone, at(0), 1, rng);
    let (_, hello_client, _) = answer("483 00000", &hello, rng);
    gone.handle_frame(at(0), hello_client);
    gone.handle_relay(at(1), &FromRelay::PeerGone(Peer::Attempt(attempt(1))), rng);
    gone.handle_timeout(at(20));
    assert!(did(&mut gone).frames.is_empty());
    // The right tag is answered.
    agent.handle_frame(at(0), record);
    let did = did(&mut agent);
    assert_eq!(did.frames.len(), 1);
    assert!(did.paired.is_some());
}

#[test]
fn a_wrong_secret_is_counted_and_the_third_burns_the_code() {
    let (mut agent, rng) = (agent(), &mut rng(4));
    for n in 1..=3 {
        let hello = greet(&mut agent, at(0), n, rng);
        let (_, hello_client, record) = answer(&format!("483 0000{n}"), &hello, rng);
        agent.handle_frame(at(0), hello_client);
        agent.handle_frame(at(0), record);
        let did = did(&mut agent);
        assert!(did.frames.is_empty() && did.paired.is_none());
        assert_eq!(did.refused, [(HandshakeError::WrongCode, 3 - u32::from(n))]);
        let refused = FromAgent::Refused(attempt(n));
        if n < 3 {
            assert_eq!((did.texts, did.spent), (vec![refused], None));
        } else {
            assert_eq!((did.texts, did.spent), (vec![refused, FromAgent::Burned], Some(Spent::WrongSecrets)));
        }
    }
    // Burned is burned: not even the right code is greeted.
    agent.handle_relay(at(0), &here(4), rng);
    let did = did(&mut agent);
    assert!(did.frames.is_empty() && did.texts.is_empty());
    assert_eq!(agent.poll_timeout(), None);
}

#[test]
fn a_record_that_does_not_open_and_a_wrong_tag_are_the_same_counted_failure() {
    // The right keys and a tag that is flipped, of another length, or followed by another message.
    let bad_bodies: [fn(Vec<u8>) -> Vec<Raw>; 6] = [
        |mut tag| {
            tag[0] ^= 1;
            vec![(1, tag)]
        },
        |tag| vec![(1, tag[..31].to_vec())],
        |mut tag| {
            tag.push(0);
            vec![(1, tag)]
        },
        |tag| vec![(1, tag.clone()), (1, tag)],
        |tag| vec![(2, tag)],
        |_| vec![],
    ];
    for body in bad_bodies {
        let (mut agent, rng) = (agent(), &mut rng(5));
        let hello = greet(&mut agent, at(0), 1, rng);
        let (hello_client, keys) = second_client(rng, session_id(), DIGITS, &hello);
        agent.handle_frame(at(0), BytesMut::from(&hello_client[..]));
        let messages = body(keys.tag_client());
        let messages: Vec<_> = messages.iter().map(|(kind, body)| (*kind, &body[..])).collect();
        agent.handle_frame(at(0), BytesMut::from(&second::seal(&keys.e("traffic c"), 0, &messages)[..]));
        assert_eq!(did(&mut agent).refused, [(HandshakeError::WrongCode, 2)]);
    }
    // A record that is flipped anywhere.
    for position in [0, 1, 40, 80] {
        let (mut agent, rng) = (agent(), &mut rng(5));
        let hello = greet(&mut agent, at(0), 1, rng);
        let (_, hello_client, mut record) = answer(CODE, &hello, rng);
        record[position] ^= 1;
        agent.handle_frame(at(0), hello_client);
        agent.handle_frame(at(0), record);
        assert_eq!(did(&mut agent).refused, [(HandshakeError::WrongCode, 2)]);
    }
}

#[test]
fn the_right_code_after_two_wrong_ones_pairs_and_serves_no_second_client() {
    let (mut agent, rng) = (agent(), &mut rng(6));
    for (n, typed) in [(1, "483 00001"), (2, "483 00002"), (3, CODE)] {
        let hello = greet(&mut agent, at(0), n, rng);
        let (_, hello_client, record) = answer(typed, &hello, rng);
        agent.handle_frame(at(0), hello_client);
        agent.handle_frame(at(0), record);
        assert_eq!(did(&mut agent).paired.is_some(), n == 3);
    }
    agent.handle_relay(at(0), &here(4), rng);
    agent.handle_timeout(at(1000));
    let after = did(&mut agent);
    assert!(after.frames.is_empty() && after.texts.is_empty() && after.spent.is_none());
}

#[test]
fn twenty_hellos_without_a_tag_burn_the_code_and_none_counts_as_a_wrong_secret() {
    let (mut agent, rng) = (agent(), &mut rng(7));
    for n in 1..=20 {
        greet(&mut agent, at(0), n, rng);
    }
    agent.handle_relay(at(0), &here(21), rng);
    let did = did(&mut agent);
    assert!(did.frames.is_empty());
    assert_eq!((did.texts, did.spent), (vec![FromAgent::Burned], Some(Spent::SilentHellos)));
}

#[test]
fn a_silent_client_has_ten_seconds() {
    let (mut agent, rng) = (agent(), &mut rng(8));
    let hello = greet(&mut agent, at(5), 1, rng);
    assert_eq!(agent.poll_timeout(), Some(at(15)));
    agent.handle_timeout(Time::from_micros(14_999_999));
    assert!(did(&mut agent).texts.is_empty());
    agent.handle_timeout(at(15));
    assert_eq!(did(&mut agent).texts, [FromAgent::Refused(attempt(1))]);
    // An answer that comes after that pairs no client, also when the timer was not called in between.
    let (_, hello_client, record) = answer(CODE, &hello, rng);
    agent.handle_frame(at(15), hello_client.clone());
    agent.handle_frame(at(15), record.clone());
    assert!(did(&mut agent).paired.is_none());
    let mut late = self::agent();
    let hello = greet(&mut late, at(5), 1, rng);
    let (_, hello_client, record) = answer(CODE, &hello, rng);
    late.handle_frame(at(5), hello_client);
    late.handle_frame(at(15), record);
    assert!(did(&mut late).paired.is_none());
    // The client waits as long for the hello, and again for the answer.
    let mut client = client(CODE);
    assert_eq!(client.poll_timeout(), Some(at(10)));
    client.handle_frame(at(9), hello.clone(), rng).unwrap();
    assert_eq!(client.poll_timeout(), Some(at(19)));
    assert_eq!(client.handle_timeout(at(18)), Ok(()));
    assert_eq!(client.handle_timeout(at(19)), Err(ClientFailure::Silent));
    assert_eq!(client.poll_timeout(), None);
    assert_eq!(
        self::client(CODE).handle_frame(at(10), hello, rng).unwrap_err(),
        ClientFailure::Silent,
        "late without a timer call"
    );
}

#[test]
fn a_code_expires_but_not_under_a_handshake() {
    let (mut agent, rng) = (agent(), &mut rng(8));
    assert_eq!(agent.poll_timeout(), Some(at(120)));
    agent.handle_timeout(Time::from_micros(119_999_999));
    assert!(did(&mut agent).spent.is_none());
    let hello = greet(&mut agent, at(119), 1, rng);
    let (_, hello_client, record) = answer(CODE, &hello, rng);
    agent.handle_timeout(at(121));
    agent.handle_frame(at(121), hello_client);
    agent.handle_frame(at(122), record);
    assert!(did(&mut agent).paired.is_some(), "a handshake that began in time may end");

    let mut agent = self::agent();
    agent.handle_timeout(at(120));
    let expired = did(&mut agent);
    assert_eq!((expired.texts, expired.spent), (vec![FromAgent::Burned], Some(Spent::Expired)));
    agent.handle_relay(at(120), &here(1), rng);
    assert!(did(&mut agent).frames.is_empty());
    // A greeting at the last moment that stays silent ends in expiry too.
    let mut agent = self::agent();
    greet(&mut agent, at(119), 1, rng);
    agent.handle_timeout(at(129));
    assert_eq!(did(&mut agent).spent, Some(Spent::Expired));
}

#[test]
fn a_new_attempt_gets_fresh_values_and_the_old_one_is_dropped() {
    let (mut agent, rng) = (agent(), &mut rng(10));
    let first = greet(&mut agent, at(0), 1, rng);
    let (_, old_hello, old_record) = answer(CODE, &first, rng);
    agent.handle_frame(at(0), old_hello.clone());
    let second = greet(&mut agent, at(0), 2, rng);
    for field in ["x25519", "mlkem768", "spake2", "commit"] {
        assert_ne!(json_of(&first)[field], json_of(&second)[field], "{field}");
    }
    // The first client's messages fit the second hello no more.
    agent.handle_frame(at(0), old_hello);
    agent.handle_frame(at(0), old_record);
    let did = did(&mut agent);
    assert_eq!(did.refused, [(HandshakeError::WrongCode, 2)]);
    assert!(did.paired.is_none());
    // Another attempt's end does not touch this one; its own does.
    let mut agent = self::agent();
    greet(&mut agent, at(0), 1, rng);
    agent.handle_relay(at(0), &FromRelay::PeerGone(Peer::Attempt(attempt(9))), rng);
    assert_eq!(agent.poll_timeout(), Some(at(10)));
    agent.handle_relay(at(0), &FromRelay::PeerGone(Peer::Attempt(attempt(1))), rng);
    assert_eq!(agent.poll_timeout(), Some(at(120)));
}

#[test]
fn reflection_leads_nowhere() {
    let rng = &mut rng(11);
    // An agent's hello back to it, and its frame as a hello_client.
    let mut agent = agent();
    let hello = greet(&mut agent, at(0), 1, rng);
    agent.handle_frame(at(0), hello.clone());
    assert_eq!(misbehaved(&did(&mut agent).refused[0].0), "a frame that is not a hello");
    assert!(agent_says_to_frame(|_| [&[2], &hello[1..]].concat()).is_err());
    assert_eq!(misbehaved(&agent_says(|hello| hello["role"] = json!("agent")).unwrap_err()), "wrong role");
    // The agent's own SPAKE2 message back: its side byte gives it away, and changing that changes the group's side.
    let own = bytes_of(&json_of(&hello), "spake2");
    assert!(agent_says(|hello| hello["spake2"] = text_of(&own)).is_err());
    // A client's hello and record back to it.
    let (mut client, hello_client, mut record) = answer(CODE, &hello, rng);
    let (mut other, _, _) = answer(CODE, &hello, rng);
    assert!(matches!(
        client.handle_frame(at(0), hello_client, rng),
        Err(ClientFailure::Handshake(HandshakeError::WrongCode))
    ));
    assert!(other.handle_frame(at(0), record.split(), rng).is_err());
    // The tags of the two ends differ, and so do their traffic keys.
    let (_, keys) = second_client(rng, session_id(), DIGITS, &hello);
    assert_ne!(keys.tag_client(), keys.tag_agent(&[]));
    assert_ne!(keys.e("traffic c"), keys.e("traffic a"));
}

#[test]
fn crossed_sessions_with_the_same_code_do_not_pair() {
    let rng = &mut rng(12);
    let other = SessionId::from_bytes([8; 16]);
    let mut agent = AgentPairing::new(at(0), other, code(CODE), false, TTL);
    let hello = greet(&mut agent, at(0), 1, rng);
    assert_eq!(misbehaved(&client_says(&hello).unwrap_err()), "a hello of another session");
    // The relay rewrites the session's name in both hellos: the identities in SPAKE2 and the transcript differ.
    let mut value = json_of(&hello);
    value["session_id"] = json!(session_id().to_string());
    let (_, hello_client, record) = answer(CODE, &frame_of(1, &value), rng);
    let mut value = json_of(&hello_client);
    value["session_id"] = json!(other.to_string());
    agent.handle_frame(at(0), BytesMut::from(&frame_of(2, &value)[..]));
    agent.handle_frame(at(0), record);
    assert_eq!(did(&mut agent).refused, [(HandshakeError::WrongCode, 2)]);
}

#[test]
fn a_client_shows_one_tag_for_a_typed_code() {
    let rng = &mut rng(13);
    let (mut first, mut second) = (agent(), agent());
    let hellos = [greet(&mut first, at(0), 1, rng), greet(&mut second, at(0), 1, rng)];
    let (mut client, ..) = answer(CODE, &hellos[0], rng);
    assert!(client.has_shown_tag());
    assert_eq!(client.handle_frame(at(0), hellos[1].clone(), rng).unwrap_err(), ClientFailure::SecondHello);
    assert!(client.poll_transmit().is_none(), "and nothing is said to it");
    assert!(client.handle_frame(at(0), hellos[1].clone(), rng).unwrap().is_none());
    assert!(client.poll_transmit().is_none());
    // A refusal after the tag leaves nothing to try again with either.
    let (mut client, ..) = answer(CODE, &hellos[0], rng);
    assert!(client.handle_frame(at(0), BytesMut::from(&[5; 100][..]), rng).is_err());
    assert!(client.handle_frame(at(0), hellos[1].clone(), rng).unwrap().is_none());
    assert!(client.poll_transmit().is_none() && client.has_shown_tag());
}

#[test]
fn the_words_cannot_be_ground() {
    let rng = &mut rng(14);
    let run = |change_r: bool, change_commit: bool, rng: &mut StdRng| {
        let mut other = SecondAgent::new(rng, session_id(), DIGITS);
        if change_commit {
            let mut value = json_of(&other.hello);
            value["commit"] = text_of(&[1; 32]);
            other.hello = frame_of(1, &value);
        }
        let mut r = other.r;
        let (mut client, hello_client, _) = answer(CODE, &other.hello, rng);
        let keys = other.keys(&hello_client);
        if change_r {
            // The attacker has seen the client's hello, and searches an r whose words it likes.
            while !keys.words(&r).starts_with('a') || r == [0; 32] {
                r[0] = r[0].wrapping_add(1);
                r[1] = r[1].wrapping_add(u8::from(r[0] == 0));
            }
        }
        let body = [&r[..], &keys.tag_agent(&r)].concat();
        let record = second::seal(&keys.e("traffic a"), 0, &[(1, &body)]);
        client.handle_frame(at(0), BytesMut::from(&record[..]), rng).map(|established| established.is_some())
    };
    let wrong = Err(ClientFailure::Handshake(HandshakeError::WrongCode));
    assert_eq!(run(false, false, rng), Ok(true));
    assert_eq!(run(true, false, rng), wrong, "an r that was not committed to");
    assert_eq!(run(false, true, rng), wrong, "a commitment to something else");
}

#[test]
fn the_agents_tag_covers_r() {
    let rng = &mut rng(15);
    let other = SecondAgent::new(rng, session_id(), DIGITS);
    let r = other.r;
    let (mut client, hello_client, _) = answer(CODE, &other.hello, rng);
    let keys = other.keys(&hello_client);
    let body = [&r[..], &keys.tag_agent(&[])].concat();
    let record = second::seal(&keys.e("traffic a"), 0, &[(1, &body)]);
    assert!(client.handle_frame(at(0), BytesMut::from(&record[..]), rng).is_err());
}

#[test]
fn a_man_in_the_middle_with_keys_of_his_own_has_one_guess_on_each_side() {
    let (mut agent, rng) = (agent(), &mut rng(16));
    let hello = greet(&mut agent, at(0), 1, rng);
    // Towards the client he plays an agent with a guessed code, towards the agent a client with another.
    let fake = SecondAgent::new(rng, session_id(), "48300000");
    let (mut client, hello_client, record) = answer(CODE, &fake.hello, rng);
    let keys = fake.keys(&hello_client);
    assert_eq!(second::open(&keys.e("traffic c"), 0, &record), None, "a wrong guess opens nothing");
    let body = [&[0; 32][..], &keys.tag_agent(&[0; 32])].concat();
    let forged = second::seal(&keys.e("traffic a"), 0, &[(1, &body)]);
    assert!(client.handle_frame(at(0), BytesMut::from(&forged[..]), rng).is_err());
    let (hello_client, keys) = second_client(rng, session_id(), "48300001", &hello);
    agent.handle_frame(at(0), BytesMut::from(&hello_client[..]));
    let record = second::seal(&keys.e("traffic c"), 0, &[(1, &keys.tag_client())]);
    agent.handle_frame(at(0), BytesMut::from(&record[..]));
    assert_eq!(did(&mut agent).refused, [(HandshakeError::WrongCode, 2)]);
}

#[test]
fn swapped_keys_between_two_honest_ends_are_noticed() {
    for field in ["x25519", "mlkem768", "spake2"] {
        let rng = &mut rng(17);
        let mut agent = agent();
        let hello = greet(&mut agent, at(0), 1, rng);
        let mut value = json_of(&hello);
        value[field] = json_of(&SecondAgent::new(rng, session_id(), DIGITS).hello)[field].clone();
        let (_, hello_client, record) = answer(CODE, &frame_of(1, &value), rng);
        agent.handle_frame(at(0), hello_client);
        agent.handle_frame(at(0), record);
        assert_eq!(did(&mut agent).refused, [(HandshakeError::WrongCode, 2)], "{field}");
    }
    // Even a space between two JSON fields is in the transcript.
    let rng = &mut rng(17);
    let mut agent = agent();
    let hello = greet(&mut agent, at(0), 1, rng);
    let spaced = [&hello[..2], b" ", &hello[2..]].concat();
    let (_, hello_client, record) = answer(CODE, &spaced, rng);
    agent.handle_frame(at(0), hello_client);
    agent.handle_frame(at(0), record);
    assert_eq!(did(&mut agent).refused, [(HandshakeError::WrongCode, 2)]);
}

#[test]
fn either_end_makes_both_verify() {
    for (at_agent, at_client) in [(false, false), (true, false), (false, true), (true, true)] {
        let rng = &mut rng(19);
        let mut agent = AgentPairing::new(at(0), session_id(), code(CODE), at_agent, TTL);
        let mut client = ClientPairing::new(at(0), session_id(), code(CODE), at_client);
        let hello = greet(&mut agent, at(0), 1, rng);
        client.handle_frame(at(0), hello, rng).unwrap();
        while let Some(frame) = client.poll_transmit() {
            agent.handle_frame(at(0), BytesMut::from(frame));
        }
        let mut did = did(&mut agent);
        let theirs = did.paired.unwrap();
        let ours = client.handle_frame(at(0), did.frames.remove(0), rng).unwrap().unwrap();
        assert_eq!((theirs.verify, ours.verify), (at_agent || at_client, at_agent || at_client));
        assert_eq!(theirs.words, ours.words);
        assert_eq!(theirs.words.split(' ').count(), 4);
    }
}

#[test]
fn nothing_that_prints_shows_a_secret() {
    let rng = &mut rng(20);
    let secret = Secret::random(rng);
    let typed = PairingCode { nameplate: "483".parse().unwrap(), secret };
    let digits = String::from_utf8(typed.digits()[3..].to_vec()).unwrap();
    let mut agent = AgentPairing::new(at(0), session_id(), typed.clone(), true, TTL);
    agent.handle_relay(at(0), &here(1), rng);
    let mut client = ClientPairing::new(at(0), session_id(), typed.clone(), true);
    client.handle_frame(at(0), peer_frame(agent.poll_transmit()), rng).unwrap();
    while let Some(frame) = client.poll_transmit() {
        agent.handle_frame(at(0), BytesMut::from(frame));
    }
    let mut printed = format!("{typed:?} {:?}", typed.secret);
    let mut words = String::new();
    while let Some(event) = agent.poll_event() {
        printed += &format!("{event:?}");
        if let AgentEvent::Paired(established) = event {
            words = established.words.clone();
            let session = mykube_tunnel::Session::new(at(0), *established, mykube_tunnel::Config::default());
            printed += &format!("{session:?}");
        }
    }
    assert!(!printed.contains(&digits), "{printed}");
    assert!(!words.is_empty() && !printed.contains(&words), "{printed}");
    assert_eq!(
        format!(
            "{:?} {:?}",
            mykube_tunnel::test_api::Sealer::from_secret([7; 32]),
            mykube_tunnel::test_api::Opener::from_secret([7; 32])
        ),
        "Sealer(seq 0) Opener(seq 0)"
    );
    let credentials = mykube_tunnel::protocol::channel::Credentials {
        token: Some("hunter2".into()),
        certificate: None,
        key: Some("hunter2".into()),
        username: None,
        password: Some("hunter2".into()),
        expiring: false,
    };
    assert!(!format!("{credentials:?}").contains("hunter2"));
}
