//! Streams: their life, their order, and peers that keep to none of it.
//!
//! Over 500 lines because it is one list of cases, each with its set-up.

use bytes::Bytes;
use mykube_tunnel::{
    Event, SessionError,
    protocol::{Role, limits},
    session::{OpenError, ReadState, Write},
};

use crate::{
    hostile::{Hostile, Raw, data, text, upkeep},
    pair::{Line, MS, Pair, SECOND},
};

fn pair() -> Pair {
    Pair::new(Line::new(10 * MS, 0))
}

fn opened(role: Role) -> (Pair, u32) {
    let mut pair = pair();
    let id = pair.open(role);
    pair.run(50 * MS);
    assert_eq!(pair.end(role.peer()).events, [Event::Opened { id, target: None }]);
    (pair, id)
}

fn assert_ends(result: Result<(), SessionError>, what: &str) {
    assert!(matches!(result, Err(SessionError::Misbehaved(_))), "{what}: {result:?}");
}

#[test]
fn bytes_may_follow_at_once_and_keep_their_order() {
    let mut pair = pair();
    let id = pair.open(Role::Client);
    let body: Vec<u8> = (0..200_000_u32).map(|n| (n % 253) as u8).collect();
    for chunk in body.chunks(777) {
        pair.write(Role::Client, id, chunk);
    }
    pair.finish(Role::Client, id);
    pair.run(SECOND);
    assert_eq!(pair.read(Role::Agent, id), (body, ReadState::Eof));
}

#[test]
fn a_reader_takes_what_it_asks_for_and_hears_of_the_end_behind_the_last_byte() {
    for (end, state) in [("eof:1", ReadState::Eof), ("done:1:cut", ReadState::Failed("cut".into()))] {
        let mut peer = Hostile::against(Role::Agent);
        peer.say(&[text("new:1"), data(1, &[7; 16_000])]).unwrap();
        peer.say(&[data(1, &[7; 16_000])]).unwrap();
        peer.say_text(end).unwrap();
        let mut chunks = Vec::new();
        assert_eq!(peer.session.read(peer.now, 1, 16_000, &mut chunks), ReadState::Open, "{end}");
        assert_eq!(chunks.concat().len(), 16_000);
        assert_eq!(peer.session.read(peer.now, 1, 16_000, &mut chunks), state);
        assert_eq!(chunks.concat().len(), 32_000);
    }
}

#[test]
fn half_close_in_both_orders() {
    for first in [Role::Client, Role::Agent] {
        let (mut pair, id) = opened(Role::Client);
        let second = first.peer();
        pair.write(first, id, b"all I have");
        pair.finish(first, id);
        assert_eq!(pair.write(first, id, b"more"), Write::Over, "nothing after the end");
        pair.run(50 * MS);
        assert_eq!(pair.read(second, id), (b"all I have".to_vec(), ReadState::Eof));
        // The other direction goes on for as long as it likes.
        for _ in 0..5 {
            pair.run(SECOND);
            pair.write(second, id, b"more ");
        }
        pair.finish(second, id);
        pair.run(50 * MS);
        assert_eq!(pair.read(first, id), (b"more more more more more ".to_vec(), ReadState::Eof));
        for role in [first, second] {
            pair.release(role, id, None);
        }
        pair.settle();
        pair.ok();
        assert_eq!((pair.agent.session.streams(), pair.client.session.streams()), (0, 0));
    }
}

#[test]
fn a_release_is_clean_only_when_both_ends_have_ended() {
    // Clean: the peer reads an end, before and after it sees `done`.
    let (mut pair, id) = opened(Role::Client);
    for role in [Role::Client, Role::Agent] {
        pair.write(role, id, b"x");
        pair.finish(role, id);
    }
    pair.run(50 * MS);
    assert_eq!(pair.read(Role::Client, id), (b"x".to_vec(), ReadState::Eof));
    pair.release(Role::Client, id, None);
    pair.run(50 * MS);
    assert_eq!(pair.read(Role::Agent, id), (b"x".to_vec(), ReadState::Eof));
    // Not clean: one of the directions was still open.
    for finished in [None, Some(Role::Client), Some(Role::Agent)] {
        let (mut pair, id) = opened(Role::Client);
        pair.write(Role::Client, id, b"half");
        if let Some(role) = finished {
            pair.finish(role, id);
        }
        pair.run(50 * MS);
        pair.release(Role::Client, id, None);
        pair.run(50 * MS);
        // What the client had ended before is whole; an agent that still writes to it learns that it is gone.
        let whole = finished == Some(Role::Client);
        let state = if whole { ReadState::Eof } else { ReadState::Failed("closed".into()) };
        assert_eq!(pair.read(Role::Agent, id), (b"half".to_vec(), state));
        assert_eq!(pair.write(Role::Agent, id, b"x"), Write::Over);
        pair.release(Role::Agent, id, None);
        pair.settle();
        pair.ok();
        assert_eq!((pair.agent.session.streams(), pair.client.session.streams()), (0, 0));
    }
}

#[test]
fn a_reason_reaches_the_peer_clean_and_short() {
    let (mut pair, id) = opened(Role::Client);
    let hostile = format!("dial tcp: \x1b[31mrefused\r\n\u{202e}{}", "ä".repeat(300));
    pair.release(Role::Agent, id, Some(&hostile));
    pair.run(50 * MS);
    let (_, ReadState::Failed(reason)) = pair.read(Role::Client, id) else { panic!("failed") };
    assert!(reason.starts_with("dial tcp: [31mrefusedää"), "{reason}");
    assert!(reason.len() <= limits::REASON_MAX && reason.chars().all(|c| !c.is_control()));
    // A peer that sends it uncleaned or longer.
    let mut peer = Hostile::against(Role::Client);
    let id = peer.session.open(peer.now, None).unwrap();
    peer.say_text(&format!("done:{id}:bad\x07\u{202e}")).unwrap();
    assert_eq!(peer.session.read(peer.now, id, 1, &mut Vec::new()), ReadState::Failed("bad".into()));
    let mut peer = Hostile::against(Role::Client);
    let id = peer.session.open(peer.now, None).unwrap();
    assert_ends(peer.say_text(&format!("done:{id}:{}", "x".repeat(257))), "a long reason");
}

#[test]
fn a_failure_is_seen_after_what_came_before_it_and_wakes_reader_and_writer() {
    let (mut pair, id) = opened(Role::Client);
    pair.write(Role::Agent, id, b"before");
    pair.run(50 * MS);
    let full = pair.write(Role::Client, id, &vec![0; 600_000]);
    assert_eq!(full, Write::Taken { full: true });
    assert!(pair.client.session.is_full(id));
    pair.run(50 * MS);
    assert_eq!(pair.read_up_to(Role::Client, id, 3), (b"before".to_vec(), ReadState::Open));
    pair.client.events.clear();
    pair.release(Role::Agent, id, Some("gone"));
    pair.run(50 * MS);
    assert!(pair.client.events.contains(&Event::Readable(id)) && pair.client.events.contains(&Event::Writable(id)));
    assert_eq!(pair.read(Role::Client, id), (vec![], ReadState::Failed("gone".into())));
    assert_eq!(pair.write(Role::Client, id, b"x"), Write::Over);
}

#[test]
fn what_was_written_before_a_failure_is_delivered_and_then_it_fails() {
    const LEN: usize = 1_500_000;
    for (finished, reason, ends) in [
        (false, Some("gone"), ReadState::Failed("gone".into())),
        (false, None, ReadState::Failed("closed".into())),
        // A direction that was ended is whole, whatever became of the other one.
        (true, Some("gone"), ReadState::Eof),
        (true, None, ReadState::Eof),
    ] {
        let (mut pair, id) = opened(Role::Client);
        // Far more than the stream's first window: most of it waits.
        pair.write(Role::Agent, id, &vec![7; LEN]);
        if finished {
            pair.finish(Role::Agent, id);
        }
        pair.release(Role::Agent, id, reason);
        let mut received = 0;
        let state = loop {
            pair.run(50 * MS);
            let (bytes, state) = pair.read(Role::Client, id);
            received += bytes.len();
            if state != ReadState::Open {
                break state;
            }
        };
        assert_eq!((received, state), (LEN, ends), "finished: {finished}, {reason:?}");
        assert_eq!(pair.write(Role::Client, id, b"x"), Write::Over);
        pair.release(Role::Client, id, None);
        pair.settle();
        pair.ok();
        assert_eq!((pair.agent.session.streams(), pair.client.session.streams()), (0, 0));
        assert_eq!(pair.agent.session.audit().queued, 0);
    }
}

#[test]
fn the_order_of_a_stream_is_kept_whatever_its_priority() {
    // One stream with a lot of data in many turns, eof at its end; others come and go beside it.
    let mut peer = Hostile::against(Role::Client);
    let bulk = peer.session.open(peer.now, None).unwrap();
    peer.session.write(peer.now, bulk, Bytes::from(vec![7; 100_000]));
    peer.session.finish(peer.now, bulk);
    for _ in 0..20 {
        let id = peer.session.open(peer.now, None).unwrap();
        peer.session.write(peer.now, id, Bytes::from_static(b"key"));
        peer.session.finish(peer.now, id);
        peer.session.release(peer.now, id, Some("over"));
    }
    let mut log: Vec<Raw> = Vec::new();
    let mut acked = 0;
    for _ in 0..50 {
        let heard = peer.hear();
        acked += heard.iter().filter(|(kind, _)| matches!(kind, 2 | 3)).count();
        log.extend(heard);
        peer.now = peer.now + 5 * MS;
        peer.say(&[upkeep(&format!("ack:{acked}"))]).unwrap();
    }
    for id in (bulk..bulk + 42).step_by(2) {
        let of_stream: Vec<String> = log
            .iter()
            .filter_map(|(kind, body)| match kind {
                2 => {
                    let text = String::from_utf8(body.clone()).unwrap();
                    (text.split(':').nth(1) == Some(&id.to_string())).then(|| text.split(':').next().unwrap().into())
                }
                3 => (body[..4] == id.to_be_bytes()).then(|| "data".into()),
                _ => None,
            })
            .collect();
        let mut shape = of_stream.clone();
        shape.dedup();
        let expected: &[&str] = if id == bulk { &["new", "data", "eof"] } else { &["new", "data", "eof", "done"] };
        assert_eq!(shape, expected, "stream {id}");
    }
    assert!(log.iter().filter(|(kind, _)| *kind == 3).count() > 6, "in several turns");
}

#[test]
fn numbers_have_parity_grow_and_are_never_reused() {
    let mut pair = pair();
    let mut last = 0;
    for _ in 0..300 {
        let id = pair.open(Role::Client);
        assert!(id % 2 == 1 && id > last);
        last = id;
        pair.release(Role::Client, id, None);
        pair.run(30 * MS);
        pair.release(Role::Agent, id, None);
        pair.run(30 * MS);
    }
    assert_eq!(pair.open(Role::Agent), 2);
    pair.ok();
    for (against, news) in [
        (Role::Agent, &["new:2"][..]),
        (Role::Client, &["new:1"]),
        (Role::Agent, &["new:3", "new:3"]),
        (Role::Agent, &["new:3", "new:1"]),
        (Role::Agent, &["new:1", "done:1", "new:1"]),
    ] {
        let mut peer = Hostile::against(against);
        let (last, earlier) = news.split_last().unwrap();
        for new in earlier {
            peer.say_text(new).unwrap();
        }
        assert_ends(peer.say_text(last), last);
    }
}

#[test]
fn a_number_that_was_passed_over_is_a_stream_that_is_closed() {
    let mut peer = Hostile::against(Role::Agent);
    peer.say(&[text("new:1"), text("new:7")]).unwrap();
    peer.events();
    peer.say(&[data(3, b"x"), text("credit:3:1"), text("eof:5"), text("done:5")]).unwrap();
    assert_eq!((peer.events(), peer.session.streams()), (vec![], 2));
    assert_ends(peer.say_text("new:5"), "a stream number that is not the peer's next");
}

#[test]
fn a_stream_that_was_never_opened_ends_the_session_and_a_closed_one_is_ignored() {
    for never in ["credit:1:1", "eof:1", "done:1", "done:2", "credit:2:5"] {
        assert_ends(Hostile::against(Role::Agent).say_text(never), never);
    }
    for id in [0, 1, 2, u32::MAX] {
        assert_ends(Hostile::against(Role::Agent).say(&[data(id, b"x")]), "data");
    }
    let mut peer = Hostile::against(Role::Agent);
    peer.say_text("new:1").unwrap();
    peer.session.release(peer.now, 1, None);
    peer.say_text("done:1:over").unwrap();
    assert_eq!(peer.texts(), ["done:1:closed"]);
    assert!(peer.events().contains(&Event::Closed(1)));
    for late in ["credit:1:1", "eof:1", "done:1"] {
        peer.say_text(late).unwrap();
    }
    peer.say(&[data(1, b"late")]).unwrap();
    assert!(peer.events().is_empty());
    assert_eq!(peer.session.streams(), 0);
}

#[test]
fn nothing_comes_after_the_end_of_a_stream() {
    for (end, after) in [("eof:1", "eof:1"), ("done:1", "done:1"), ("done:1:x", "eof:1"), ("done:1", "eof:1")] {
        let mut peer = Hostile::against(Role::Agent);
        peer.say_text("new:1").unwrap();
        peer.say_text(end).unwrap();
        assert_ends(peer.say_text(after), after);
    }
    for end in ["eof:1", "done:1", "done:1:x"] {
        let mut peer = Hostile::against(Role::Agent);
        peer.say_text("new:1").unwrap();
        peer.say_text(end).unwrap();
        assert_ends(peer.say(&[data(1, b"x")]), end);
    }
}

/// An agent of before: it knows no targets.
fn old_agent(peer: &mut Hostile) {
    for text in peer.texts() {
        if let Some(id) = text.strip_prefix("new:").and_then(|new| new.strip_suffix(":?streams")) {
            peer.say_text(&format!("done:{id}:target not allowed")).unwrap();
        }
    }
}

#[test]
fn two_hundred_and_fifty_six_streams_at_once_with_an_agent_that_keeps_no_more() {
    let mut peer = Hostile::against(Role::Client);
    let now = peer.now;
    let open = |peer: &mut Hostile, count: usize| -> Vec<u32> {
        (0..count).map_while(|_| peer.session.open(now, None).ok()).collect()
    };
    let first = open(&mut peer, 300);
    assert_eq!(first.len(), limits::STREAMS_WIDE_MAX - 1, "one asks, the others wait for the answer");
    old_agent(&mut peer);
    // The question's own slot is free once both have said that it is over.
    assert!(peer.texts().iter().any(|text| text.starts_with("done:")));
    let rest = open(&mut peer, 300);
    assert_eq!(first.len() + rest.len(), limits::STREAMS_MAX);
    assert_eq!(peer.session.open(now, None), Err(OpenError::TooMany));
    let news: Vec<_> = peer.texts().into_iter().filter(|text| text.starts_with("new:")).collect();
    assert!(news.len() == rest.len() && news.iter().all(|text| !text.contains('?')), "{news:?}");
}

#[test]
fn a_thousand_streams_at_once_with_an_agent_that_keeps_them() {
    let mut pair = pair();
    let mut ids = Vec::new();
    while let Ok(id) = pair.client.session.open(pair.now, None) {
        ids.push(id);
    }
    assert_eq!(ids.len(), limits::STREAMS_WIDE_MAX - 1);
    pair.run(SECOND);
    while let Ok(id) = pair.client.session.open(pair.now, None) {
        ids.push(id);
        pair.run(MS);
    }
    pair.run(SECOND);
    pair.ok();
    assert_eq!(ids.len(), limits::STREAMS_MAX_ASKED);
    assert_eq!(pair.agent.session.streams(), limits::STREAMS_MAX_ASKED);
    assert_eq!(pair.agent.session.open(pair.now, None), Err(OpenError::TooMany));
    // All are streams to the API server, and what they may have unread together is what it always was.
    let opened = pair.agent.events.iter().filter(|event| matches!(event, Event::Opened { target: None, .. })).count();
    assert_eq!(opened, ids.len());
    for id in &ids {
        pair.write(Role::Client, *id, &[1; 300_000]);
        pair.write(Role::Agent, *id, &[1; 300_000]);
    }
    pair.run(60 * SECOND);
    pair.ok();
    for end in [&pair.agent.session, &pair.client.session] {
        let unread = limits::SESSION_WINDOW - end.audit().session_allowance;
        assert_eq!(unread, 192 * limits::STREAM_WINDOW + (1024 - 192) * limits::NARROW_WINDOW);
        assert!(unread <= limits::FIRST_WINDOWS, "{unread}");
        assert_eq!(end.share(), 8 * 1024, "of what waits");
    }
    let (wide, narrow) = (ids[0], ids[ids.len() - 1]);
    for role in [Role::Agent, Role::Client] {
        assert_eq!(pair.read(role, wide).0.len() as u64, limits::STREAM_WINDOW);
        assert_eq!(pair.read(role, narrow).0.len() as u64, limits::NARROW_WINDOW);
    }
    // One end's release frees nothing yet: it counts until the backend has closed as well.
    let last = *ids.last().unwrap();
    pair.release(Role::Client, last, None);
    pair.run(SECOND);
    assert_eq!(pair.client.session.open(pair.now, None), Err(OpenError::TooMany));
    pair.release(Role::Agent, last, None);
    pair.run(SECOND);
    assert!(pair.client.events.contains(&Event::Closed(last)));
    pair.open(Role::Client);
    pair.run(SECOND);
    pair.ok();
}

#[test]
fn an_agent_opens_a_stream_beside_a_clients_narrow_ones() {
    let mut pair = pair();
    let open = |pair: &mut Pair| while pair.client.session.open(pair.now, None).is_ok() {};
    open(&mut pair);
    pair.run(SECOND);
    for _ in 0..5 {
        let now = pair.now;
        pair.client.session.open(now, None).unwrap();
    }
    let id = pair.open(Role::Agent);
    pair.run(SECOND);
    pair.ok();
    assert!(pair.client.events.contains(&Event::Opened { id, target: None }));
}

#[test]
fn a_peer_that_does_not_count_is_cut_off() {
    let mut peer = Hostile::against(Role::Agent);
    for n in 0..256 {
        peer.say_text(&format!("new:{}", 2 * n + 1)).unwrap();
    }
    assert_ends(peer.say_text("new:513"), "the 257th");
    let mut peer = Hostile::against(Role::Agent);
    for n in 0..1024 {
        let target = if n < 192 { "" } else { ":?narrow" };
        peer.say_text(&format!("new:{}{target}", 2 * n + 1)).unwrap();
    }
    assert_ends(peer.say_text("new:2049:?narrow"), "the 1,025th");
    let mut peer = Hostile::against(Role::Agent);
    for n in 0..1024 {
        let target = if n < 208 { "" } else { ":?narrow" };
        if let Err(error) = peer.say_text(&format!("new:{}{target}", 2 * n + 1)) {
            assert!(n > 900, "{n}: {error}");
            assert_ends(Err(error), "first windows beyond 64 MiB");
            return;
        }
    }
    panic!("all taken");
}

#[test]
fn an_agent_that_is_asked_keeps_nothing_for_the_question() {
    let mut peer = Hostile::against(Role::Agent);
    for id in [1, 3] {
        peer.say(&[text(&format!("new:{id}:?streams")), text(&format!("eof:{id}"))]).unwrap();
        assert_eq!(peer.texts(), [format!("done:{id}")]);
        peer.say_text(&format!("done:{id}")).unwrap();
    }
    assert_eq!((peer.session.streams(), peer.session.poll_event()), (0, None));
    // A client is asked for nothing.
    let mut peer = Hostile::against(Role::Client);
    peer.say_text("new:2:?streams").unwrap();
    assert_eq!(peer.session.poll_event(), Some(Event::Opened { id: 2, target: Some("?streams".into()) }));
}

#[test]
fn streams_that_both_ends_open_at_the_same_moment_end_no_session() {
    let mut pair = pair();
    for _ in 0..limits::STREAMS_WIDE_MAX - 1 {
        pair.open(Role::Client);
    }
    for _ in 0..90 {
        pair.open(Role::Agent);
    }
    pair.run(SECOND);
    pair.ok();
    // What is one too many is refused with a reason; the others go on.
    assert!(pair.client.session.streams() <= limits::STREAMS_MAX);
    let told = ReadState::Failed("more than 50 streams a second".into());
    assert_eq!((pair.read(Role::Agent, 2).1, pair.read(Role::Agent, 180).1), (ReadState::Open, told));
    assert_eq!(pair.read(Role::Client, 1).1, ReadState::Open);
}

#[test]
fn an_agents_stream_for_which_there_is_no_place_is_refused() {
    let mut peer = Hostile::against(Role::Client);
    while peer.session.open(peer.now, None).is_ok() {}
    peer.hear();
    let free = limits::STREAMS_MAX - peer.session.streams();
    for n in 1..=free + 2 {
        peer.now = peer.now + SECOND / 10;
        peer.say_text(&format!("new:{}", 2 * n)).unwrap();
    }
    let reason = "all streams of the session are in use";
    let refused = [free + 1, free + 2].map(|n| format!("done:{}:{reason}", 2 * n));
    assert_eq!(peer.texts().into_iter().filter(|text| text.starts_with("done:")).collect::<Vec<_>>(), refused);
    assert_eq!(peer.session.streams(), limits::STREAMS_MAX);
}

#[test]
fn an_agent_opens_fifty_streams_a_second() {
    let mut pair = pair();
    let ids: Vec<u32> = (0..60).map(|_| pair.open(Role::Agent)).collect();
    pair.write(Role::Agent, ids[55], b"into nothing");
    pair.run(500 * MS);
    pair.ok();
    assert_eq!(pair.client.session.streams(), 50);
    let told = ReadState::Failed("more than 50 streams a second".into());
    assert_eq!(pair.read(Role::Agent, ids[49]).1, ReadState::Open);
    assert_eq!(pair.read(Role::Agent, ids[50]).1, told);
    for id in &ids[50..] {
        pair.release(Role::Agent, *id, None);
    }
    pair.run(SECOND);
    assert_eq!(pair.agent.session.streams(), 50);
    pair.open(Role::Agent);
    pair.run(SECOND);
    assert_eq!(pair.client.session.streams(), 51);
    // A client is not held to that.
    for _ in 0..60 {
        pair.open(Role::Client);
    }
    pair.run(100 * MS);
    assert_eq!(pair.agent.session.streams(), 111);
    pair.ok();
}

#[test]
fn a_long_target_is_cut_and_a_target_travels() {
    let mut pair = pair();
    let (now, long) = (pair.now, "ü".repeat(5000));
    pair.client.session.open(now, Some("metrics:9000".into())).unwrap();
    pair.client.session.open(now, Some(long)).unwrap();
    pair.run(SECOND);
    pair.ok();
    assert_eq!(pair.agent.events[0], Event::Opened { id: 1, target: Some("metrics:9000".into()) });
    assert_eq!(pair.agent.events[1], Event::Opened { id: 3, target: Some("ü".repeat(2000)) });
}

#[test]
fn acknowledgements_are_checked() {
    let mut peer = Hostile::against(Role::Client);
    assert_ends(peer.say(&[upkeep("ack:1")]), "an acknowledgement of what was never sent");
    let mut peer = Hostile::against(Role::Client);
    peer.session.open(peer.now, None).unwrap();
    assert!(peer.session.wants_transmit(peer.now));
    peer.hear();
    assert!(peer.session.unacknowledged() == 1 && peer.session.audit().control > 0);
    peer.say(&[upkeep("ack:1"), upkeep("ack:0"), upkeep("ack:1")]).unwrap();
    assert!(peer.session.unacknowledged() == 0 && peer.session.audit().control == 0);
    assert_ends(peer.say(&[upkeep("ack:2")]), "an acknowledgement of what was never sent");
}

#[test]
fn acknowledgements_come_after_twenty_milliseconds_or_a_step_that_fits_the_line() {
    let acks = |heard: &[Raw]| -> Vec<String> {
        heard
            .iter()
            .filter(|(kind, body)| *kind == 4 && body.starts_with(b"ack"))
            .map(|(_, body)| String::from_utf8(body.clone()).unwrap())
            .collect()
    };
    let mut peer = Hostile::against(Role::Agent);
    peer.hear();
    peer.say(&[text("new:1"), data(1, b"x")]).unwrap();
    for _ in 0..4 {
        assert!(peer.hear().is_empty());
        peer.say(&[data(1, &[0; 16_000])]).unwrap();
    }
    peer.say(&[data(1, &[0; 1600])]).unwrap();
    assert_eq!(acks(&peer.hear()), ["ack:7"], "64 KiB, without waiting");
    // On a slow line each waits for the next one, or for 20 ms, ...
    for n in 0..4 {
        peer.say(&[data(1, b"x")]).unwrap();
        assert_eq!(peer.session.poll_timeout(), Some(peer.now + 20 * MS));
        assert!(peer.hear().is_empty());
        peer.now = peer.now + 20 * MS;
        assert_eq!(acks(&peer.hear()), [format!("ack:{}", 8 + n)]);
        assert!(peer.hear().is_empty(), "once");
    }
    // ... until a full record is worth one.
    peer.say(&[data(1, &[0; 16_000])]).unwrap();
    assert_eq!(acks(&peer.hear()), ["ack:12"]);
}

#[test]
fn a_ping_is_answered_and_a_flood_of_pings_is_answered_once() {
    let mut peer = Hostile::against(Role::Agent);
    let ours = peer.hear();
    assert!(ours.contains(&upkeep("ping:1")), "the round trip is measured at once: {ours:?}");
    let flood: Vec<Raw> = (0..1000).map(|n| upkeep(&format!("ping:{n}"))).collect();
    peer.say(&flood).unwrap();
    assert_eq!(peer.hear(), [upkeep("pong:999")]);
    // An answer to a ping that was never sent measures nothing.
    peer.say(&[upkeep("pong:7")]).unwrap();
    assert_eq!(peer.session.rtt(), None);
    peer.now = peer.now + 30 * MS;
    peer.say(&[upkeep("pong:1")]).unwrap();
    assert_eq!(peer.session.rtt(), Some(30 * MS));
    peer.say(&[upkeep("pong:1")]).unwrap();
    assert_eq!(peer.session.rtt(), Some(30 * MS));
    // Of its own the newest that waits is sent alone.
    peer.hear();
    peer.session.probe(peer.now);
    peer.session.probe(peer.now);
    let pings = peer.hear().into_iter().filter(|(_, body)| body.starts_with(b"ping:"));
    assert_eq!(pings.count(), 1);
}

#[test]
fn a_new_transport_is_measured_until_it_gets_no_quicker() {
    let mut peer = Hostile::against(Role::Agent);
    assert!(peer.hear().contains(&upkeep("ping:1")));
    for (ping, rtt) in [(1, 100), (2, 51)] {
        peer.now = peer.now + rtt * MS;
        peer.say(&[upkeep(&format!("pong:{ping}"))]).unwrap();
        assert_eq!(peer.hear(), [upkeep(&format!("ping:{}", ping + 1))], "{rtt} ms was quicker than before");
    }
    peer.now = peer.now + 50 * MS;
    peer.say(&[upkeep("pong:3")]).unwrap();
    assert!(peer.hear().is_empty(), "no quicker to speak of");
    // Nor for ever: a peer that answers ever quicker is asked four times.
    let mut peer = Hostile::against(Role::Agent);
    peer.hear();
    for (ping, rtt) in [(1, 800), (2, 400), (3, 200)] {
        peer.now = peer.now + rtt * MS;
        peer.say(&[upkeep(&format!("pong:{ping}"))]).unwrap();
        assert_eq!(peer.hear(), [upkeep(&format!("ping:{}", ping + 1))]);
    }
    peer.now = peer.now + 100 * MS;
    peer.say(&[upkeep("pong:4")]).unwrap();
    assert!(peer.hear().is_empty());
}

#[test]
fn control_that_is_never_acknowledged_ends_the_session_before_it_fills_memory() {
    let mut peer = Hostile::against(Role::Agent);
    let mut ended = None;
    for n in 0..1_000_000_u32 {
        let id = 2 * n + 1;
        peer.say(&[text(&format!("new:{id}")), text(&format!("done:{id}"))]).unwrap();
        peer.session.release(peer.now, id, Some(&"x".repeat(256)));
        peer.events();
        if let Err(error) = peer.try_hear() {
            ended = Some((n, error));
            break;
        }
    }
    let (n, error) = ended.expect("it ends");
    assert_eq!(error, SessionError::Unacknowledged);
    assert!((3500..4200).contains(&n), "at 1 MiB of control: {n}");
    assert_eq!(peer.session.poll_transmit(peer.now), Err(SessionError::Unacknowledged));
    // The same where the transport takes nothing and the peer floods with streams that are refused.
    let mut peer = Hostile::against(Role::Client);
    let mut result = Ok(());
    for n in 1..200_000_u32 {
        result = peer.say_text(&format!("new:{}", 2 * n));
        if result.is_err() {
            break;
        }
    }
    assert_eq!(result, Err(SessionError::Unacknowledged));
}

#[test]
fn after_bye_nothing_is_said_and_nothing_is_heard() {
    let (mut pair, id) = opened(Role::Client);
    pair.write(Role::Agent, id, &vec![1; 100_000]);
    pair.run(50 * MS);
    pair.client.session.bye("good\x1bbye");
    pair.client.session.bye("twice");
    assert_eq!(pair.client.session.open(pair.now, None), Err(OpenError::Closed));
    assert!(!pair.client.session.is_over(), "the word is not out yet");
    pair.transmit();
    assert!(!pair.client.session.is_over(), "nobody has heard it yet: on another transport it is said again");
    let frames = pair.client.sent_frames;
    pair.read(Role::Client, id);
    pair.write(Role::Client, id, b"too late");
    pair.release(Role::Client, id, None);
    pair.run(SECOND);
    pair.ok();
    assert!(pair.client.session.is_over() && pair.agent.session.is_over());
    assert!(pair.agent.events.contains(&Event::Bye("goodbye".into())));
    assert!(!pair.agent.events.contains(&Event::Bye("twice".into())));
    assert_eq!(pair.read(Role::Agent, id), (vec![], ReadState::Open), "a farewell is no clean end of a stream");
    assert!(pair.client.sent_frames <= frames + 3, "acknowledgements at the most");
    assert!(!pair.client.session.wants_transmit(pair.now), "or the driver would turn in circles");
    // A peer that goes on talking is not listened to.
    let mut peer = Hostile::against(Role::Agent);
    peer.say(&[text("bye:x"), text("new:1"), data(1, b"x"), text("bye:y")]).unwrap();
    assert_eq!(peer.events(), [Event::Bye("x".into())]);
    assert_eq!(peer.session.open(peer.now, None), Err(OpenError::Closed));
}

#[test]
fn what_wants_to_be_sent_is_sent() {
    // `wants_transmit` and `poll_transmit` agree at every step of a busy session, so that no driver spins or sleeps on it.
    let mut pair = Pair::new(Line::new(10 * MS, 1_250_000));
    let ids: Vec<u32> = (0..5).map(|_| pair.open(Role::Client)).collect();
    for id in &ids {
        pair.write(Role::Client, *id, &vec![0; 300_000]);
    }
    let until = pair.now + 3 * SECOND;
    while pair.step(until) {
        let now = pair.now;
        for end in [&mut pair.agent, &mut pair.client] {
            assert!(!end.session.wants_transmit(now), "nothing is left after poll_transmit gave nothing");
        }
        for id in &ids {
            pair.read(Role::Agent, *id);
        }
    }
    pair.ok();
}
