//! One end, and the test as its peer: it has the keys and says what it likes.

use bytes::{Bytes, BytesMut};
use mykube_tunnel::{Config, Event, Session, SessionError, Time, pairing::ClientPairing, protocol::frame};
use rand::{RngExt as _, rngs::StdRng};
use x25519_dalek::{PublicKey, StaticSecret};

use super::DIGITS;
use crate::{
    adversary::{self, at},
    pair::{CODE, code, rng, session_id},
    second::{self, Attached, Keys, SecondAgent, second_client},
};
pub(super) fn second_first(secret: &[u8], body: &[u8]) -> BytesMut {
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

pub(super) fn only_frame(session: &mut Session, now: Time) -> BytesMut {
    let frame = session.poll_transmit(now).unwrap().expect("a frame");
    assert_eq!(session.poll_transmit(now).unwrap(), None);
    frame
}

pub(super) fn public_in(frame: &[u8]) -> PublicKey {
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
fn every_kind_of_message_is_sent_again_once_and_in_order() {
    // The peer is the test: it sees the messages themselves.
    let (mut session, keys, mut rng) = against_client();
    let said = |session: &mut Session, secret: &[u8], seq: &mut u64| {
        let mut messages = Vec::new();
        while let Some(frame) = session.poll_transmit(at(1)).unwrap() {
            messages.extend(crate::hostile::parse(&second::open(secret, *seq, &frame).unwrap()));
            *seq += 1;
        }
        messages.retain(|(kind, _)| *kind != frame::kind::UPKEEP);
        messages
    };
    let id = session.open(at(1), Some("x".into())).unwrap();
    session.write(at(1), id, Bytes::from_static(&[7; 20_000]));
    session.finish(at(1), id);
    let (mut first, mut seq) = (Vec::new(), 1);
    first.extend(said(&mut session, &keys.e("traffic c"), &mut seq));
    session.release(at(1), id, Some("over"));
    first.extend(said(&mut session, &keys.e("traffic c"), &mut seq));
    session.bye("night falls");
    first.extend(said(&mut session, &keys.e("traffic c"), &mut seq));
    let texts = first.iter().filter(|(kind, _)| *kind == frame::kind::CONTROL);
    let texts: Vec<_> = texts.map(|(_, body)| String::from_utf8_lossy(body)).collect();
    assert_eq!(texts, ["new:1:x", "eof:1", "done:1:over", "bye:night falls"]);
    assert!(first.iter().any(|(kind, _)| *kind == frame::kind::DATA));
    for received in [0, 0].into_iter().chain(0..=first.len()) {
        let attached = attach_as_agent(&mut session, &keys, &mut rng, at(1));
        assert!(session.poll_transmit(at(1)).unwrap().is_none(), "nothing before the agent's first record");
        let body = u64::try_from(received).unwrap().to_be_bytes();
        session.handle_frame(at(1), second_first(&attached.agent(), &body)).unwrap();
        assert_eq!(said(&mut session, &attached.client(), &mut 1), first[received..], "from {received}");
    }
    assert!(session.is_over());
}

#[test]
fn what_is_yet_to_be_sent_again_cannot_be_acknowledged() {
    let (mut agent, keys, mut rng) = against_agent();
    agent.open(at(1), None).unwrap();
    quiet(&mut agent);
    let (_, _, attached) = ask_agent(&mut agent, &keys, 1, &mut rng).unwrap();
    agent.handle_frame(at(1), second_first(&attached.client(), &0_u64.to_be_bytes())).unwrap();
    let early = second::seal(&attached.client(), 1, &[(4, b"ack:1")]);
    let result = agent.handle_frame(at(1), BytesMut::from(&early[..]));
    assert_eq!(result, Err(SessionError::Misbehaved("an acknowledgement of what was never sent")));
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
    let (mut agent, keys, mut rng) = against_agent();
    quiet(&mut agent);
    let (_, _, attached) = ask_agent(&mut agent, &keys, 1, &mut rng).unwrap();
    assert_eq!(agent.handle_frame(at(1), second_first(&attached.client(), &[0; 208])), Ok(()), "longer than any is");
    assert!(!agent.is_attached());
}
