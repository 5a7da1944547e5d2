//! What a simulation does not show at once.

use super::{course::TEXTS_MAX, *};

/// An agent's end that has paired long ago, and its relay's texts.
fn agent(window: Duration) -> Endpoint {
    let established = crate::seam::established(Role::Agent, [1; 32], [2; 32]);
    let settings = Settings { attempt: Attempt::from_bytes([1; 16]), ticket: Ticket::from_bytes(b"ticket"), window };
    Endpoint::new(Time::default(), established, Config::default(), settings)
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
