//! What a simulation does not show at once.

use super::{course::TEXTS_MAX, *};

/// An agent's end that has paired long ago, and its relay's texts.
fn agent(window: Duration) -> Endpoint {
    agent_after(window, None)
}

/// The same, where a dial has failed before.
fn agent_after(window: Duration, unsure: Option<Time>) -> Endpoint {
    let established = crate::test_api::established(Role::Agent, [1; 32], [2; 32]);
    let (attempt, ticket) = (Attempt::from_bytes([1; 16]), Ticket::from_bytes(b"ticket"));
    let settings = Settings { attempt, ticket, window, unsure };
    Endpoint::new(Time::default(), established, Config::default(), settings)
}

fn orders(endpoint: &mut Endpoint) -> Vec<Order> {
    std::iter::from_fn(|| endpoint.poll_order()).collect()
}

#[test]
fn a_relay_that_asks_without_end_fills_no_memory() {
    let (mut endpoint, now, mut rng) = (agent(Duration::MAX), Time::default(), rand::rng());
    let others: Vec<_> = (2..=u8::MAX).map(|n| Attempt::from_bytes([n; 16])).collect();
    for other in &others {
        for _ in 0..2 {
            let text = FromRelay::PeerHere(Peer::Attempt(*other));
            endpoint.handle_text(now, ConnectionId::FIRST, text, &mut rng);
        }
    }
    let said: Vec<_> = std::iter::from_fn(|| endpoint.poll_text(ConnectionId::FIRST)).collect();
    let first: Vec<_> = others.into_iter().take(TEXTS_MAX).map(FromAgent::Refused).collect();
    assert_eq!(said, first);
}

#[test]
fn the_relay_may_ask_for_patience_but_only_its_final_word_ends_a_session() {
    let now = Time::from_micros(1_000_000);
    let closed = |code: u16, reason: &str| {
        let (mut endpoint, mut rng) = (agent(Duration::from_mins(1)), rand::rng());
        endpoint.handle_lost(now, ConnectionId::FIRST, Lost::closed(code, reason, String::new()), &mut rng);
        let due = endpoint.poll_timeout();
        (endpoint.ended().is_some(), due)
    };
    let asked = now + Duration::from_millis(500);
    assert_eq!(closed(1012, "retry-after=500"), (false, Some(asked)));
    assert!(closed(1012, "bye").1.is_some_and(|due| due <= now + Duration::from_millis(100)));
    for code in [1000, 1001, 1006, 1008, 1009, 1012, 4429, 4999] {
        assert!(!closed(code, "").0, "{code}");
    }
    for code in [4404, 4408, 4410, 4426] {
        assert!(closed(code, "").0, "{code}");
    }
}

#[test]
fn while_a_connection_takes_nothing_silence_means_nothing() {
    let (mut endpoint, mut rng) = (agent(Duration::from_mins(1)), rand::rng());
    let mut now = Time::default();
    endpoint.handle_timeout(now, &mut rng);
    assert!(endpoint.poll_transmit(now, ConnectionId::FIRST).is_some(), "a ping");
    endpoint.handle_blocked(ConnectionId::FIRST, true);
    for _ in 0..60 {
        now = now + Duration::from_secs(1);
        endpoint.handle_timeout(now, &mut rng);
    }
    assert!(endpoint.status().is_up());
    endpoint.handle_blocked(ConnectionId::FIRST, false);
    endpoint.handle_timeout(now, &mut rng);
    assert!(!endpoint.status().is_up(), "it was owed a word for a minute");
}

#[test]
fn a_change_that_waits_for_a_dial_is_looked_at_when_that_stands() {
    let now = Time::from_micros(1_000_000);
    let dials_again = |changes: usize, routed| {
        let mut endpoint = agent(Duration::from_mins(1));
        for _ in 0..changes {
            endpoint.handle_network_changed(now, false);
        }
        let Some(Order::Dial(newest)) = orders(&mut endpoint).pop() else { panic!("no dial") };
        assert!(endpoint.handle_connected(now, newest, routed));
        orders(&mut endpoint).iter().any(|order| matches!(order, Order::Dial(_)))
    };
    assert!(dials_again(3, false), "the third came within the pause, and its connection may be of before it");
    assert!(!dials_again(3, true));
    assert!(!dials_again(2, false), "nothing changed since it was dialled");
}

#[test]
fn a_network_that_changes_while_a_connection_dies_has_the_next_dialled_at_once() {
    let (mut endpoint, mut rng, now) = (agent(Duration::from_mins(1)), rand::rng(), Time::from_micros(1_000_000));
    endpoint.handle_write_failed(now, ConnectionId::FIRST, Lost::broken("reset"));
    endpoint.handle_network_changed(now, true);
    assert_eq!(orders(&mut endpoint), []);
    endpoint.handle_timeout(now + LAST_WORDS, &mut rng);
    assert_eq!(orders(&mut endpoint), [Order::LetGo(ConnectionId::FIRST), Order::Dial(ConnectionId(1))]);
}

#[test]
fn a_relay_that_was_asked_late_has_its_time_to_answer() {
    let (mut endpoint, mut rng, id) = (agent(Duration::from_hours(1)), rand::rng(), ConnectionId::FIRST);
    let mut now = Time::default();
    endpoint.handle_text(now, id, FromRelay::PeerGone(Peer::Session), &mut rng);
    endpoint.handle_blocked(id, true);
    for _ in 0..60 {
        now = now + Duration::from_secs(1);
        endpoint.handle_timeout(now, &mut rng);
    }
    endpoint.handle_blocked(id, false);
    endpoint.handle_timeout(now, &mut rng);
    assert!(endpoint.poll_ping(id));
    let silent = |endpoint: &Endpoint| matches!(&endpoint.line, Line::Up(connection) if connection.failed.is_some());
    for (after, is_silent) in [(0, false), (4, false), (5, true)] {
        endpoint.handle_timeout(now + Duration::from_secs(after), &mut rng);
        assert_eq!(silent(&endpoint), is_silent, "{after} s");
    }
}

#[test]
fn a_dial_that_failed_in_the_middle_of_pairing_explains_one_replacement() {
    let (mut rng, now) = (rand::rng(), Time::from_micros(1_000_000));
    let mut endpoint = agent_after(Duration::from_mins(1), Some(now));
    let replaced = Lost::closed(mykube_protocol::close::REPLACED, "", String::new());
    endpoint.handle_lost(now, ConnectionId::FIRST, replaced.clone(), &mut rng);
    assert_eq!(endpoint.ended(), None);
    let due = endpoint.poll_timeout().unwrap();
    endpoint.handle_timeout(due, &mut rng);
    let Some(Order::Dial(next)) = orders(&mut endpoint).pop() else { panic!("no dial") };
    assert!(endpoint.handle_connected(due, next, true));
    endpoint.handle_lost(due, next, replaced.clone(), &mut rng);
    assert_eq!(endpoint.ended(), Some(&End::Lost(replaced)), "once");
}
