//! What a simulation does not show at once.

use super::{course::TEXTS_MAX, *};
use crate::pairing::{ClientFailure, ClientPairing};

/// An agent's end that has paired long ago, and its relay's texts.
fn agent(window: Duration) -> Endpoint {
    agent_after(window, None)
}

/// The same, where a dial has failed before.
fn agent_after(window: Duration, unsure: Option<Time>) -> Endpoint {
    end(Role::Agent, window, unsure)
}

fn end(role: Role, window: Duration, unsure: Option<Time>) -> Endpoint {
    let established = crate::test_api::established(role, [1; 32], [2; 32]);
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

#[test]
fn only_an_agent_tells_the_relay_who_has_paired() {
    let (ours, other) = (Attempt::from_bytes([1; 16]), Attempt::from_bytes([2; 16]));
    for (role, attempt, said) in [
        (Role::Agent, ours, Some(FromAgent::Paired(ours))),
        (Role::Agent, other, Some(FromAgent::Refused(other))),
        (Role::Client, ours, None),
        (Role::Client, other, None),
    ] {
        let (mut endpoint, now, mut rng) = (end(role, Duration::MAX, None), Time::default(), rand::rng());
        let text = FromRelay::PeerHere(Peer::Attempt(attempt));
        endpoint.handle_text(now, ConnectionId::FIRST, text, &mut rng);
        assert_eq!(endpoint.poll_text(ConnectionId::FIRST), said, "{role}");
    }
}

#[test]
fn a_refused_ticket_ends_a_session_once_its_connection_is_closed_or_has_had_its_time() {
    for waits in [false, true] {
        let (mut endpoint, mut rng, now) = (agent(Duration::from_mins(1)), rand::rng(), Time::from_micros(1_000_000));
        endpoint.handle_network_changed(now, false);
        let Some(Order::Dial(dial)) = orders(&mut endpoint).pop() else { panic!("no dial") };
        endpoint.handle_dial_failed(now, dial, DialFailure::TicketRefused("no".into()), &mut rng);
        assert!(endpoint.is_closing(ConnectionId::FIRST) && !endpoint.is_closing(dial));
        assert!(endpoint.is_carried_by(ConnectionId::FIRST) && !endpoint.is_carried_by(dial));
        endpoint.handle_closed(now, dial);
        endpoint.handle_timeout(now + Duration::from_millis(1999), &mut rng);
        assert_eq!((endpoint.ended(), endpoint.has_orders()), (None, false));
        if waits {
            endpoint.handle_timeout(now + BYE_TIMEOUT, &mut rng);
        } else {
            endpoint.handle_closed(now, ConnectionId::FIRST);
        }
        assert_eq!(endpoint.ended(), Some(&End::Refused("no".into())));
        assert!(endpoint.has_orders() && !endpoint.is_closing(ConnectionId::FIRST));
        assert!(!endpoint.is_carried_by(ConnectionId::FIRST));
        assert_eq!(orders(&mut endpoint), [Order::LetGo(ConnectionId::FIRST), Order::Over]);
        assert_eq!((endpoint.poll_timeout(), endpoint.has_orders()), (None, false));
    }
}

#[test]
fn a_driver_that_stops_leaves_nothing_under_way() {
    let (mut endpoint, now) = (agent(Duration::from_mins(1)), Time::from_micros(1_000_000));
    endpoint.handle_network_changed(now, false);
    let Some(Order::Dial(dial)) = orders(&mut endpoint).pop() else { panic!("no dial") };
    endpoint.handle_stopped(now);
    assert!(matches!(endpoint.ended(), Some(End::Lost(_))));
    assert_eq!(orders(&mut endpoint), [Order::GiveUp(dial), Order::LetGo(ConnectionId::FIRST), Order::Over]);
}

#[test]
fn a_change_within_the_pause_is_dialled_for_at_its_end() {
    let (mut endpoint, mut rng, now) = (agent(Duration::from_mins(1)), rand::rng(), Time::from_micros(1_000_000));
    for _ in 0..3 {
        endpoint.handle_network_changed(now, false);
    }
    orders(&mut endpoint);
    let pause = Duration::from_millis(250);
    endpoint.handle_timeout(now + Duration::from_millis(249), &mut rng);
    assert_eq!(orders(&mut endpoint), []);
    assert_eq!(endpoint.poll_timeout(), Some(now + pause));
    endpoint.handle_timeout(now + pause, &mut rng);
    assert!(matches!(orders(&mut endpoint)[..], [Order::GiveUp(_), Order::Dial(_)]));
}

#[test]
fn a_connection_that_takes_nothing_wakes_nobody() {
    let (mut endpoint, now) = (agent(Duration::from_mins(1)), Time::default());
    assert_eq!(endpoint.poll_timeout(), Some(now), "a ping is due");
    endpoint.handle_blocked(ConnectionId::FIRST, true);
    assert_eq!(endpoint.poll_timeout(), Some(now + TICK));
}

/// Everything there is to send now.
fn drain(endpoint: &mut Endpoint, now: Time) {
    while endpoint.poll_transmit(now, ConnectionId::FIRST).is_some() {}
}

#[test]
fn a_connection_has_something_to_do_until_all_is_said() {
    let (mut endpoint, mut rng, now) = (agent(Duration::from_mins(1)), rand::rng(), Time::default());
    assert!(endpoint.wants_transmit(now), "a ping");
    drain(&mut endpoint, now);
    assert!(!endpoint.wants_transmit(now));
    let text = FromRelay::PeerHere(Peer::Attempt(Attempt::from_bytes([2; 16])));
    endpoint.handle_text(now, ConnectionId::FIRST, text.clone(), &mut rng);
    assert!(endpoint.wants_transmit(now), "a text");
    assert!(endpoint.poll_text(ConnectionId::FIRST).is_some());
    assert!(!endpoint.wants_transmit(now));

    endpoint.leave(now, "bye");
    assert!(endpoint.wants_transmit(now), "a farewell");
    drain(&mut endpoint, now);
    assert!(!endpoint.wants_transmit(now));
    let late = now + BYE_TIMEOUT;
    endpoint.handle_text(now, ConnectionId::FIRST, text, &mut rng);
    endpoint.handle_timeout(late, &mut rng);
    drain(&mut endpoint, late);
    assert!(!endpoint.is_closing(ConnectionId::FIRST), "not before the relay was answered");
    assert!(endpoint.poll_text(ConnectionId::FIRST).is_some());
    assert!(endpoint.wants_transmit(late), "its end");
    drain(&mut endpoint, late);
    assert!(endpoint.is_closing(ConnectionId::FIRST) && endpoint.wants_transmit(late));
    endpoint.handle_closed(late, ConnectionId::FIRST);
    assert!(!endpoint.wants_transmit(late));

    let mut endpoint = agent(Duration::from_mins(1));
    endpoint.handle_write_failed(now, ConnectionId::FIRST, Lost::broken("reset"));
    assert!(!endpoint.wants_transmit(now), "it takes nothing any more");
    assert!(endpoint.poll_transmit(now, ConnectionId::FIRST).is_none());
}

#[test]
fn an_end_that_stays_away_ends_with_its_window() {
    let (window, now) = (Duration::from_mins(1), Time::from_micros(1_000_000));
    let (mut endpoint, mut rng) = (agent(window), rand::rng());
    endpoint.handle_lost(now, ConnectionId::FIRST, Lost::broken("reset"), &mut rng);
    endpoint.handle_timeout(now + Duration::from_millis(59_999), &mut rng);
    assert_eq!(endpoint.ended(), None);
    assert_eq!(endpoint.poll_timeout(), Some(now + window));
    endpoint.handle_timeout(now + window, &mut rng);
    assert!(matches!(endpoint.ended(), Some(End::Window { .. })));
}

#[test]
fn a_connection_that_is_no_more_says_nothing() {
    let (mut endpoint, mut rng, now) = (agent(Duration::MAX), rand::rng(), Time::default());
    let text = FromRelay::PeerHere(Peer::Attempt(Attempt::from_bytes([2; 16])));
    endpoint.handle_text(now, ConnectionId(7), text, &mut rng);
    assert_eq!(endpoint.poll_text(ConnectionId::FIRST), None);
    endpoint.handle_lost(now, ConnectionId(7), Lost::broken("reset"), &mut rng);
    assert_eq!(orders(&mut endpoint), []);
}

#[test]
fn a_relay_that_answers_at_once_has_answered() {
    let (mut endpoint, mut rng) = (agent(Duration::from_hours(1)), rand::rng());
    endpoint.handle_text(Time::default(), ConnectionId::FIRST, FromRelay::PeerGone(Peer::Session), &mut rng);
    for minutes in 1..5 {
        let now = Time::default() + Duration::from_mins(minutes);
        endpoint.handle_timeout(now, &mut rng);
        assert!(endpoint.poll_ping(ConnectionId::FIRST), "{minutes}");
        endpoint.handle_heard(now, ConnectionId::FIRST);
    }
}

#[test]
fn an_error_on_a_connection_whose_writes_fail_ends_a_session_at_once() {
    let (mut endpoint, mut rng, now) = (agent(Duration::MAX), rand::rng(), Time::default());
    endpoint.handle_write_failed(now, ConnectionId::FIRST, Lost::broken("reset"));
    let mut frame = BytesMut::from(&[frame::RECORD, 9, 0, 0, 0, 0][..]);
    crate::test_api::Sealer::from_secret([1; 32]).seal(&mut frame);
    endpoint.handle_frame(now, ConnectionId::FIRST, frame, &mut rng);
    assert!(matches!(endpoint.ended(), Some(End::Session(SessionError::Misbehaved(_)))), "{:?}", endpoint.ended());
}

/// An agent's end that says farewell by `bye`, and whose client has heard it; and how many records the client has sent.
fn heard(window: Duration, bye: impl FnOnce(&mut Endpoint, Time)) -> (Endpoint, Time, usize) {
    let (mut endpoint, mut rng, mut now, mut records) = (agent(window), rand::rng(), Time::default(), 0);
    let client = crate::test_api::established(Role::Client, [1; 32], [2; 32]);
    let mut client = Session::new(now, client, Config::default());
    bye(&mut endpoint, now);
    while let Some(frame) = endpoint.poll_transmit(now, ConnectionId::FIRST) {
        client.handle_frame(now, frame).unwrap();
    }
    assert_eq!(client.heard_bye(), Some("through"));
    now = client.poll_timeout().map_or(now, |due| due.max(now));
    client.handle_timeout(now);
    while let Some(frame) = client.poll_transmit(now).unwrap() {
        endpoint.handle_frame(now, ConnectionId::FIRST, frame, &mut rng);
        records += 1;
    }
    (endpoint, now, records)
}

/// The same, and the client is gone.
fn heard_to_leave(window: Duration, bye: impl FnOnce(&mut Endpoint, Time)) -> (Endpoint, Time) {
    let ((mut endpoint, now, _), mut rng) = (heard(window, bye), rand::rng());
    endpoint.handle_text(now, ConnectionId::FIRST, FromRelay::PeerGone(Peer::Session), &mut rng);
    endpoint.handle_timeout(now, &mut rng);
    (endpoint, now)
}

#[test]
fn an_end_whose_farewell_was_heard_ends_by_it_and_not_by_its_window() {
    let (mut endpoint, now) = heard_to_leave(Duration::ZERO, |endpoint, now| endpoint.leave(now, "through"));
    assert_eq!(endpoint.ended(), None);
    while endpoint.poll_transmit(now, ConnectionId::FIRST).is_some() {}
    assert!(endpoint.is_closing(ConnectionId::FIRST));
    endpoint.handle_closed(now, ConnectionId::FIRST);
    assert_eq!(endpoint.ended(), Some(&End::Here));
}

#[test]
fn an_end_whose_farewell_was_heard_ends_by_it_and_not_by_a_refused_ticket() {
    let (mut endpoint, now) = heard_to_leave(Duration::from_mins(1), |endpoint, _| endpoint.session.bye("through"));
    let mut rng = rand::rng();
    endpoint.handle_network_changed(now, false);
    let Some(Order::Dial(dial)) = orders(&mut endpoint).pop() else { panic!("no dial") };
    endpoint.handle_dial_failed(now, dial, DialFailure::TicketRefused("no".into()), &mut rng);
    assert!(endpoint.is_closing(ConnectionId::FIRST));
    endpoint.handle_closed(now, ConnectionId::FIRST);
    assert_eq!(endpoint.ended(), Some(&End::Here));
}

#[test]
fn an_end_whose_farewell_was_heard_ends_by_it_and_not_by_what_its_peer_says_wrongly_after_that() {
    let bye = |endpoint: &mut Endpoint, _| endpoint.session.bye("through");
    let (mut endpoint, now, records) = heard(Duration::from_mins(1), bye);
    let mut sealer = crate::test_api::Sealer::from_secret([1; 32]);
    let mut record = |plaintext: &[u8]| {
        let mut frame = BytesMut::from(&[&[frame::RECORD], plaintext].concat()[..]);
        sealer.seal(&mut frame);
        frame
    };
    for _ in 0..records {
        record(&[]);
    }
    let frame = record(&[9, 0, 0, 0, 0]);
    endpoint.handle_frame(now, ConnectionId::FIRST, frame, &mut rand::rng());
    assert!(endpoint.is_closing(ConnectionId::FIRST));
    endpoint.handle_closed(now, ConnectionId::FIRST);
    assert_eq!(endpoint.ended(), Some(&End::Here));
}

#[test]
fn a_connection_that_takes_nothing_keeps_no_end_whose_farewell_was_heard() {
    let mut rng = rand::rng();
    let (mut endpoint, begun) = heard_to_leave(Duration::ZERO, |endpoint, _| endpoint.session.bye("through"));
    endpoint.handle_blocked(ConnectionId::FIRST, true);
    let mut now = begun;
    while endpoint.ended().is_none() {
        now = endpoint.poll_timeout().expect("it ends in time").max(now);
        assert!(now <= begun + 2 * BYE_TIMEOUT + Duration::from_secs(1), "it still waits");
        endpoint.handle_timeout(now, &mut rng);
    }
    assert_eq!(endpoint.ended(), Some(&End::Here));
}

#[test]
fn a_relay_is_asked_after_a_while_and_answers_soon() {
    let at = |seconds| Time::default() + Duration::from_secs(seconds);
    let mut connection = Connection::new(at(10), ConnectionId::FIRST);
    for (asked, heard, due) in [(None, 10, 25), (Some(10), 10, 25), (Some(12), 10, 17), (Some(12), 13, 28)] {
        (connection.asked, connection.heard) = (asked.map(at), at(heard));
        assert_eq!(connection.relay_due(), at(due), "asked at {asked:?}, heard at {heard}");
    }
}

#[test]
fn a_window_is_told_in_whole_units() {
    for (seconds, told) in
        [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (86_400, "24 h")]
    {
        let end = End::Window { reason: "away".into(), window: Duration::from_secs(seconds) };
        assert!(end.to_string().contains(&format!(" {told}")), "{end}");
    }
}

#[test]
fn a_client_that_pairs_dials_on_until_it_is_late() {
    let (mut rng, now) = (rand::rng(), Time::default());
    let mut fails = |after: u64, failure: DialFailure| {
        let code = "483 20417".parse().unwrap();
        let mut pairing = ClientPairing::new(now, mykube_protocol::SessionId::from_bytes([7; 16]), code, false);
        let lost = Lost::broken("reset");
        let (mut reconnect, _) = PairingReconnect::new(now, &lost, &mut pairing, &mut rng.clone()).expect("in time");
        reconnect.handle_dial_failed(now + Duration::from_secs(after), &failure, &mut pairing, &mut rng)
    };
    let answered = || DialFailure::Answered("407".into());
    assert!(matches!(fails(9, answered()), Next::Dial(_)));
    assert!(matches!(fails(9, DialFailure::Unreachable), Next::Dial(_)));
    assert_eq!(fails(9, DialFailure::TicketRefused("no".into())), Next::Failed);
    assert_eq!(fails(10, answered()), Next::Failed, "who answers in the relay's place says more");
    assert_eq!(fails(10, DialFailure::Unreachable), Next::Late(ClientFailure::Silent));
}
