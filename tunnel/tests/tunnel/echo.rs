//! The shortest whole story: a code on the screen, a paired channel, one stream there and back.

use mykube_tunnel::{Event, protocol::Role, session::ReadState};

use crate::pair::{Line, MS, Pair};

#[test]
fn from_a_code_to_an_echo() {
    let mut pair = Pair::new(Line::new(10 * MS, 1_250_000));
    let id = pair.open(Role::Client);
    pair.write(Role::Client, id, b"hello");
    pair.finish(Role::Client, id);
    pair.run(100 * MS);
    assert_eq!(pair.agent.events, [Event::Opened { id, target: None }]);
    assert_eq!(pair.read(Role::Agent, id), (b"hello".to_vec(), ReadState::Eof));
    pair.write(Role::Agent, id, b"hello yourself");
    pair.finish(Role::Agent, id);
    pair.release(Role::Agent, id, None);
    pair.run(100 * MS);
    assert_eq!(pair.read(Role::Client, id), (b"hello yourself".to_vec(), ReadState::Eof));
    pair.release(Role::Client, id, None);
    pair.settle();
    pair.ok();
    assert_eq!((pair.agent.session.streams(), pair.client.session.streams()), (0, 0));
    assert!(pair.agent.events.contains(&Event::Closed(id)) && pair.client.events.contains(&Event::Closed(id)));
    assert_eq!((pair.agent.session.unacknowledged(), pair.client.session.unacknowledged()), (0, 0));
    assert_eq!(pair.agent.session.rtt().map(|rtt| rtt >= 20 * MS), Some(true));
}

#[test]
fn an_idle_session_says_something_every_fifteen_seconds() {
    let mut pair = Pair::new(Line::new(10 * MS, 1_250_000));
    pair.settle();
    let (agent, client) = (pair.agent.sent_frames, pair.client.sent_frames);
    pair.run(60 * 1000 * MS);
    pair.ok();
    // A ping of one's own and a pong to the other's, each 15 s: far below any idle limit, and no more than that.
    for sent in [pair.agent.sent_frames - agent, pair.client.sent_frames - client] {
        assert!((6..=10).contains(&sent), "{sent} frames in a minute");
    }
}
