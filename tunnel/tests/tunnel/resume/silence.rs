//! A transport that is silent, and questions that are not answered.

use bytes::BytesMut;
use mykube_tunnel::{
    Config, Event, Session, Time,
    protocol::{Role, limits},
};

use super::Two;
use crate::pair::{MS, SECOND, rng};
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
    // Without a transport no end counts as silent.
    let mut two = settled();
    two.lose();
    let now = two.now;
    two.client.probe(now);
    assert!(!two.client.is_probing() && two.agent.poll_timeout().is_none());
}

#[test]
fn without_a_transport_what_waits_of_a_stream_is_not_given_up() {
    let mut two = Two::new(Config::default());
    let id = two.open(Role::Client);
    two.write(Role::Client, id, &[1; 400_000]);
    two.exchange();
    let now = two.now;
    two.client.release(now, id, Some("gone"));
    two.exchange();
    two.pass(limits::RELEASED_UNTAKEN / 2);
    two.lose();
    two.pass(100 * limits::RELEASED_UNTAKEN);
    let now = two.now;
    two.client.handle_timeout(now);
    two.attach();
    two.pass(limits::RELEASED_UNTAKEN - SECOND);
    two.exchange();
    assert!(two.client.audit().queued > 0, "it could be taken only now");
    two.pass(2 * SECOND);
    two.exchange();
    assert_eq!(two.client.audit().queued, 0);
}

#[test]
fn a_client_asks_again() {
    let mut two = Two::new(Config::default());
    two.exchange();
    two.lose();
    let (lost, mut rng) = (two.now, rng(1));
    // A client that is told nothing asks after half a minute, and a relay that says "gone" delays it no longer.
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
