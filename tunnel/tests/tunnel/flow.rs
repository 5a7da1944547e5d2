//! Flow control: windows are exact, hostile peers are held to them, and nothing leaks.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use mykube_tunnel::{
    Event, SessionError,
    protocol::{
        Role,
        limits::{
            GROWTH_MAX, NARROW_WINDOW, SESSION_CREDIT_STEP, SESSION_WINDOW, STREAM_WINDOW, STREAM_WINDOW_MAX,
            STREAMS_MAX_ASKED, STREAMS_WIDE_MAX,
        },
    },
    session::{ReadState, Write},
};

use crate::{
    hostile::{Hostile, data, text, upkeep},
    pair::{Line, MS, Pair, SECOND},
};

const WINDOW: usize = STREAM_WINDOW as usize;

fn assert_ends(result: Result<(), SessionError>, why: &str) {
    assert_eq!(result, Err(SessionError::Misbehaved(why_of(why))));
}

fn why_of(why: &str) -> &'static str {
    ["more data than the stream's credit", "more data than the session's credit", "credit that is zero or overflows"]
        .into_iter()
        .find(|known| *known == why)
        .unwrap()
}

/// Takes everything the session says, acknowledges it, and gives the payload of each data message.
fn drain(peer: &mut Hostile, heard: &mut u64) -> Vec<(u32, usize)> {
    let mut data = Vec::new();
    for _ in 0..200 {
        let messages = peer.hear();
        if messages.is_empty() {
            break;
        }
        for (kind, body) in messages {
            *heard += u64::from(matches!(kind, 2 | 3 | 5));
            if kind == 3 {
                data.push((u32::from_be_bytes(body[..4].try_into().unwrap()), body.len() - 4));
            }
        }
        peer.now = peer.now + MS;
        peer.say(&[upkeep(&format!("ack:{heard}"))]).unwrap();
    }
    data
}

#[test]
fn a_sender_stops_exactly_at_the_window() {
    let mut peer = Hostile::against(Role::Client);
    let id = peer.session.open(peer.now, None).unwrap();
    peer.session.write(peer.now, id, Bytes::from(vec![0; 3 * WINDOW]));
    peer.session.finish(peer.now, id);
    let mut heard = 0;
    let total = |sent: Vec<(u32, usize)>| sent.iter().map(|(_, len)| len).sum::<usize>();
    assert_eq!(total(drain(&mut peer, &mut heard)), WINDOW);
    for n in [1, 1000, 100_000] {
        peer.say_text(&format!("credit:{id}:{n}")).unwrap();
        assert_eq!(total(drain(&mut peer, &mut heard)), n);
    }
    peer.say_text(&format!("credit:{id}:{}", 4 * WINDOW)).unwrap();
    assert_eq!(total(drain(&mut peer, &mut heard)), 2 * WINDOW - 101_001, "no more than there was");
}

#[test]
fn an_empty_session_credit_stops_every_stream_and_a_new_one_starts_them_in_turn() {
    let mut peer = Hostile::against(Role::Client);
    let ids: Vec<u32> = (0..4).map(|_| peer.session.open(peer.now, None).unwrap()).collect();
    let mut heard = 0;
    let mut left = SESSION_WINDOW as usize;
    for id in &ids {
        peer.session.write(peer.now, *id, Bytes::from(vec![0; 40 << 20]));
        peer.say_text(&format!("credit:{id}:{}", 40 << 20)).unwrap();
    }
    while left > 0 {
        let sent: usize = drain(&mut peer, &mut heard).iter().map(|(_, len)| len).sum();
        assert!(sent > 0 && sent <= left, "{sent} of {left}");
        left -= sent;
    }
    assert!(drain(&mut peer, &mut heard).is_empty());
    peer.say_text("credit:0:65536").unwrap();
    let sent = drain(&mut peer, &mut heard);
    assert_eq!(sent.iter().map(|(_, len)| len).sum::<usize>(), 65536);
}

#[test]
fn an_honest_sender_never_has_more_than_its_window_under_way_and_a_stalled_reader_stalls_only_its_stream() {
    let mut pair = Pair::new(Line::new(10 * MS, 12_500_000));
    let ids: Vec<u32> = (0..5).map(|_| pair.open(Role::Client)).collect();
    let mut got = vec![0; 5];
    for id in &ids {
        pair.write(Role::Client, *id, &vec![0; 4 << 20]);
    }
    for _ in 0..400 {
        pair.run(10 * MS);
        // The first is never read.
        for (id, got) in ids.iter().zip(&mut got).skip(1) {
            *got += pair.read(Role::Agent, *id).0.len();
        }
    }
    pair.ok();
    assert_eq!(got, [0, 4 << 20, 4 << 20, 4 << 20, 4 << 20]);
    // All that the stalled one sent is its first window, to the byte, and it is still whole.
    let (late, state) = pair.read(Role::Agent, ids[0]);
    assert_eq!((late.len(), state), (WINDOW, ReadState::Open));
    for _ in 0..400 {
        pair.run(10 * MS);
        got[0] += pair.read(Role::Agent, ids[0]).0.len();
    }
    assert_eq!(got[0] + WINDOW, 4 << 20);
    pair.ok();
}

#[test]
fn on_a_long_path_credit_that_no_acknowledgement_carries_waits_for_its_turn_and_is_one_message() {
    let mut peer = Hostile::against(Role::Agent);
    assert!(peer.hear().contains(&upkeep("ping:1")));
    peer.now = peer.now + 100 * MS;
    peer.say(&[upkeep("pong:1")]).unwrap();
    peer.say_text("new:1").unwrap();
    for _ in 0..16 {
        peer.say(&[data(1, &[0; 16_000])]).unwrap();
    }
    peer.hear();
    // All of it is acknowledged, and the reader was too slow for a larger window.
    peer.now = peer.now + SECOND;
    peer.hear();
    let quarter = WINDOW as u64 / 4;
    let read = |peer: &mut Hostile| {
        let mut chunks = Vec::new();
        peer.session.read(peer.now, 1, quarter, &mut chunks);
        chunks.iter().map(Bytes::len).sum::<usize>()
    };
    let first = read(&mut peer);
    assert_eq!(peer.texts(), Vec::<String>::new(), "the reader has it in hand");
    let mut in_hand = read(&mut peer);
    assert_eq!(peer.texts(), [format!("credit:1:{first}")], "the first at once");
    let told = peer.now;
    let mut later = 0;
    for _ in 0..2 {
        peer.now = peer.now + MS;
        later += in_hand;
        in_hand = read(&mut peer);
        assert_eq!(peer.texts(), Vec::<String>::new());
    }
    assert_eq!(peer.session.poll_timeout(), Some(told + 20 * MS), "a fifth of the round trip");
    peer.now = told + 20 * MS;
    assert_eq!(peer.texts(), [format!("credit:1:{later}")]);
    assert!(peer.session.poll_timeout().is_none_or(|at| at > peer.now));
}

#[test]
fn a_byte_over_the_streams_window_ends_the_session() {
    let mut peer = Hostile::against(Role::Agent);
    peer.say_text("new:1").unwrap();
    let mut left = WINDOW;
    while left > 0 {
        let len = left.min(16_000);
        peer.say(&[data(1, &vec![0; len])]).unwrap();
        left -= len;
    }
    assert_ends(peer.say(&[data(1, b"x")]), "more data than the stream's credit");
    // Reading makes room, but only what was announced may come.
    let mut peer = Hostile::against(Role::Agent);
    peer.say_text("new:1").unwrap();
    for _ in 0..16 {
        peer.say(&[data(1, &[0; 16_384 - 9])]).unwrap();
    }
    let sent = 16 * (16_384 - 9);
    let mut chunks = Vec::new();
    peer.session.read(peer.now, 1, u64::MAX, &mut chunks);
    assert_eq!(peer.texts(), Vec::<String>::new(), "what the reader has in hand is still in this end's memory");
    peer.session.read(peer.now, 1, u64::MAX, &mut chunks);
    let texts = peer.texts();
    let [credit] = &texts[..] else { panic!("{texts:?}") };
    assert_eq!(*credit, format!("credit:1:{sent}"));
    for _ in 0..16 {
        peer.say(&[data(1, &[0; 16_384 - 9])]).unwrap();
    }
    peer.say(&[data(1, &vec![0; WINDOW - sent])]).unwrap();
    assert_ends(peer.say(&[data(1, b"x")]), "more data than the stream's credit");
}

#[test]
fn the_sessions_window_bounds_all_streams_together() {
    // 256 first windows are half of it: the other half can only come by growth that this end grants.
    let mut peer = Hostile::against(Role::Agent);
    for n in 0..256_u32 {
        peer.say_text(&format!("new:{}", 2 * n + 1)).unwrap();
        for _ in 0..16 {
            peer.say(&[data(2 * n + 1, &[0; 16_000])]).unwrap();
        }
    }
    assert_eq!(peer.texts(), Vec::<String>::new());
    // On a closed stream nothing is kept, but the session's credit is counted and comes back.
    let mut peer = Hostile::against(Role::Agent);
    peer.say_text("new:1").unwrap();
    peer.session.release(peer.now, 1, None);
    peer.hear();
    peer.say(&[upkeep("ack:1"), text("done:1:x")]).unwrap();
    assert_eq!(peer.session.streams(), 0);
    let mut returned = 0_u64;
    let mut sent = 0_u64;
    for _ in 0..20_000 {
        peer.say(&[data(1, &[0; 16_000])]).unwrap();
        sent += 16_000;
        for text in peer.texts() {
            if let Some(n) = text.strip_prefix("credit:0:") {
                returned += n.parse::<u64>().unwrap();
            }
        }
        peer.say(&[upkeep("ack:1")]).unwrap();
    }
    assert!(sent > 2 * SESSION_WINDOW && sent - returned < SESSION_CREDIT_STEP, "{sent} {returned}");
    // Session credit that is used up in one go: a stream that was released unread, without the session reading on.
    let mut peer = Hostile::against(Role::Agent);
    let mut total = 0;
    let ended = 'ended: {
        for n in 0..2000_u32 {
            let id = 2 * n + 1;
            peer.say_text(&format!("new:{id}")).unwrap();
            for _ in 0..16 {
                if let Err(error) = peer.say(&[data(id, &[0; 16_000])]) {
                    break 'ended error;
                }
                total += 16_000_u64;
            }
            if n >= 255 {
                break;
            }
        }
        return;
    };
    panic!("{ended} after {total}: 256 first windows must fit");
}

#[test]
fn credit_is_checked() {
    for bad in ["credit:1:0", "credit:0:0", "credit:1:18446744073709551615", "credit:0:18446744073709551615"] {
        let mut peer = Hostile::against(Role::Agent);
        peer.say_text("new:1").unwrap();
        assert_ends(peer.say_text(bad), "credit that is zero or overflows");
    }
    let mut peer = Hostile::against(Role::Agent);
    peer.say_text("new:1").unwrap();
    let result = (0..10_000).try_for_each(|_| peer.say_text("credit:1:1099511627"));
    assert_ends(result, "credit that is zero or overflows");
}

#[test]
fn a_peer_that_gives_credit_and_acknowledges_nothing_is_not_kept_for_without_end() {
    let mut peer = Hostile::against(Role::Client);
    let mut sent = 0;
    for _ in 0..400 {
        if let Ok(id) = peer.session.open(peer.now, None) {
            peer.session.write(peer.now, id, Bytes::from(vec![0; 1 << 20]));
        }
    }
    peer.say_text("credit:0:1000000000").unwrap();
    for id in (1..2 * 192).step_by(2) {
        peer.say_text(&format!("credit:{id}:1000000000")).unwrap();
    }
    for _ in 0..2000 {
        peer.now = peer.now + 10 * MS;
        sent += peer.hear().iter().filter(|(kind, _)| *kind == 3).map(|(_, body)| body.len()).sum::<usize>();
    }
    assert!(sent <= 160 * 1024, "{sent} bytes went out without an acknowledgement");
}

#[test]
fn ten_thousand_streams_with_unread_data_leak_nothing() {
    // Each is opened, filled with its whole window and given up unread, in every way a stream can end.
    let mut pair = Pair::new(Line::new(MS, 0));
    pair.settle();
    for n in 0..10_000_u32 {
        let opener = if n % 100 == 0 { Role::Agent } else { Role::Client };
        let id = pair.open(opener);
        let writer = if n % 3 == 0 { opener } else { opener.peer() };
        pair.run(3 * MS);
        let len = [1, 700, 5_000, 40_000, 300_000][n as usize % 5];
        pair.write(writer, id, &vec![0; len]);
        if n % 7 == 0 {
            pair.finish(writer, id);
        }
        pair.run([0, 3, 60][n as usize % 3] * MS);
        if n % 11 == 0 {
            pair.read_up_to(writer.peer(), id, 10_000);
        }
        let first = if n % 2 == 0 { Role::Agent } else { Role::Client };
        pair.release(first, id, (n % 5 == 0).then_some("why"));
        pair.run(3 * MS);
        pair.release(first.peer(), id, None);
        pair.run(30 * MS);
        pair.ok();
        assert_eq!((pair.agent.session.streams(), pair.client.session.streams()), (0, 0), "{n}");
        for role in [Role::Agent, Role::Client] {
            pair.end(role).events.clear();
            pair.end(role).frame_lengths.clear();
        }
    }
    pair.settle();
    // Both ends' allowances still carry a stream with all the growth that there is.
    for role in [Role::Client, Role::Agent] {
        let audit = pair.end(role).session.audit();
        assert_eq!(audit.session_allowance, SESSION_WINDOW, "{role}");
        // Every byte sent came back as credit, but what the peer has not told yet: less than a step.
        let least = SESSION_WINDOW - SESSION_CREDIT_STEP;
        assert!(audit.session_credit > least && audit.session_credit <= SESSION_WINDOW, "{role}");
        assert_eq!(audit.growth_left, GROWTH_MAX, "{role}");
        assert_eq!((audit.kept, audit.queued, audit.control), (0, 0, 0), "{role}");
    }
}

#[test]
fn windows_grow_for_a_quick_reader_and_give_their_growth_back() {
    let mut pair = Pair::new(Line::new(100 * MS, 62_500_000));
    let id = pair.open(Role::Client);
    let got = Rc::new(Cell::new(0_usize));
    let until = pair.now + 4 * SECOND;
    while pair.step(until) {
        while !pair.client.session.is_full(id) {
            pair.write(Role::Client, id, &[0; 65_536]);
        }
        got.set(got.get() + pair.read(Role::Agent, id).0.len());
    }
    pair.ok();
    let grown = pair.agent.session.audit().growth_left;
    assert!(grown < GROWTH_MAX - (8 << 20), "{grown}");
    pair.release(Role::Client, id, None);
    pair.release(Role::Agent, id, None);
    pair.settle();
    assert_eq!(pair.agent.session.audit().growth_left, GROWTH_MAX);
    assert!(pair.agent.events.contains(&Event::Closed(id)));
}

/// The client sends as it may, the agent reads, until the stream's window is the largest.
fn grow(pair: &mut Pair) -> u32 {
    let (id, before) = (pair.open(Role::Client), pair.agent.session.audit().growth_left);
    let until = pair.now + 60 * SECOND;
    while pair.agent.session.audit().growth_left > before - (STREAM_WINDOW_MAX - STREAM_WINDOW) {
        assert!(pair.step(until), "{} left", pair.agent.session.audit().growth_left);
        while !pair.client.session.is_full(id) {
            pair.write(Role::Client, id, &[0; 65_536]);
        }
        pair.read(Role::Agent, id);
    }
    id
}

#[test]
fn readers_that_stall_with_the_largest_windows_use_up_their_own_and_no_more() {
    let mut pair = Pair::new(Line::new(100 * MS, 125_000_000));
    let large = [grow(&mut pair), grow(&mut pair)];
    assert!(pair.agent.session.audit().growth_left < STREAM_WINDOW, "no third one finds room");
    // As many more as there may be but one: first those that an agent of any release keeps, then those that were asked for.
    let mut first: Vec<_> = (0..STREAMS_WIDE_MAX - 3).map(|_| pair.open(Role::Client)).collect();
    pair.run(SECOND);
    first.extend((2 + first.len()..STREAMS_MAX_ASKED - 1).map(|_| pair.open(Role::Client)));
    let (wide, narrow) = first.split_at(STREAMS_WIDE_MAX - 2);
    let stalled = [(&large[..], STREAM_WINDOW_MAX), (wide, STREAM_WINDOW), (narrow, NARROW_WINDOW)];
    for (id, window) in stalled.iter().flat_map(|(ids, window)| ids.iter().map(|id| (*id, *window))) {
        pair.write(Role::Client, id, &vec![0; usize::try_from(window).unwrap() + 1]);
    }
    pair.run(10 * SECOND);
    pair.ok();
    // All of them are full to the byte, and nobody reads. One stream lives.
    assert_eq!(
        pair.agent.session.audit().session_allowance,
        SESSION_WINDOW - stalled.iter().map(|(ids, window)| ids.len() as u64 * window).sum::<u64>()
    );
    let (live, mut got) = (pair.open(Role::Client), 0);
    let until = pair.now + 600 * SECOND;
    const MUCH: usize = 8 << 20;
    while got < MUCH && pair.step(until) {
        if !pair.client.session.is_full(live) {
            pair.write(Role::Client, live, &[0; 65_536]);
        }
        got += pair.read(Role::Agent, live).0.len();
    }
    pair.ok();
    assert!(got >= MUCH, "starved after {got}");
}

#[test]
fn one_byte_at_a_time_waits_and_travels_as_few_messages() {
    let mut peer = Hostile::against(Role::Client);
    let id = peer.session.open(peer.now, None).unwrap();
    let mut heard = 0;
    drain(&mut peer, &mut heard);
    // Nothing leaves before all is written.
    for n in 0..100_000_u32 {
        peer.session.write(peer.now, id, Bytes::from(vec![n as u8]));
    }
    let sent = drain(&mut peer, &mut heard);
    assert_eq!(sent.iter().map(|(_, len)| len).sum::<usize>(), 100_000);
    assert!(sent.len() < 20, "{} messages", sent.len());
}

#[test]
fn a_session_grows_no_further_than_it_is_configured() {
    let config = mykube_tunnel::Config { growth: 256 * 1024, ..Default::default() };
    let mut pair = Pair::with(Line::new(100 * MS, 62_500_000), config, Default::default());
    let id = pair.open(Role::Client);
    let mut got = 0;
    let until = pair.now + 20 * SECOND;
    while pair.step(until) {
        while !pair.client.session.is_full(id) {
            pair.write(Role::Client, id, &[0; 65_536]);
        }
        got += pair.read(Role::Agent, id).0.len();
    }
    assert_eq!(pair.agent.session.audit().growth_left, 0);
    // 512 KiB each round trip of 200 ms.
    assert!(got < 20 * 5 * 512 * 1024 && got > 20 * 3 * 512 * 1024, "{got}");
    pair.ok();
}

/// How many acknowledgements `bytes` of payload are worth that come in records `apart`.
fn acknowledgements(bytes: usize, apart: std::time::Duration) -> usize {
    const PAYLOAD: usize = 16_000;
    let mut peer = Hostile::against(Role::Client);
    let id = peer.session.open(peer.now, None).unwrap();
    let mut count = 0;
    for _ in 0..bytes / PAYLOAD {
        peer.now = peer.now + apart;
        peer.say(&[data(id, &[0; PAYLOAD])]).unwrap();
        peer.session.read(peer.now, id, u64::MAX, &mut Vec::new());
        for (_, body) in peer.hear().into_iter().filter(|(kind, _)| *kind == 4) {
            let said = String::from_utf8(body).unwrap();
            count += usize::from(said.starts_with("ack:"));
            if let Some(n) = said.strip_prefix("ping:") {
                peer.say(&[upkeep(&format!("pong:{n}"))]).unwrap();
            }
        }
    }
    count
}

#[test]
fn what_comes_quickly_is_acknowledged_in_longer_steps() {
    let (quick, slow) = (acknowledgements(16 << 20, MS / 50), acknowledgements(16 << 20, MS));
    assert!(slow >= 200, "{slow} at 16 MB/s: one for each 64 KiB");
    assert!(quick <= 150, "{quick} at 800 MB/s: one for each 128 KiB");
}

#[test]
fn many_streams_share_what_one_may_queue() {
    let now = mykube_tunnel::Time::default();
    let queued = |streams: usize| {
        let mut session = Hostile::against(Role::Client).session;
        let ids: Vec<_> = (0..streams).map(|_| session.open(now, None).unwrap()).collect();
        for id in ids {
            while session.write(now, id, Bytes::from(vec![0; 16 << 10])) == (Write::Taken { full: false }) {}
        }
        session.audit().queued
    };
    assert_eq!([queued(1), queued(32), queued(180)], [512 << 10, 2 << 20, 180 * (32 << 10)]);
}
