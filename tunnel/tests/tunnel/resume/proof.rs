//! The handshake's last message lost: it comes with the attach.

use bytes::BytesMut;
use mykube_tunnel::{
    Config, Event, Session,
    pairing::{AgentEvent, ClientFailure, ClientPairing, Transmit},
    protocol::limits,
};
use rand::{RngExt as _, rngs::StdRng};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{
    DIGITS, FIRST, FIRST_WITH_PROOF,
    peer::{only_frame, public_in, second_first},
};
use crate::{
    adversary::{self, at},
    pair::{CODE, code, here, rng, session_id},
    second::SecondAgent,
};
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
