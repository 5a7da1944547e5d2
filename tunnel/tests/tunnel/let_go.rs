//! Streams that one end is through with, or both, while what was written before still waits for the other to take it.

use std::time::Duration;

use bytes::Bytes;
use mykube_tunnel::{
    protocol::{
        Role,
        limits::{GROWTH_MAX, NARROW_WINDOW, RELEASED_UNTAKEN, SESSION_CREDIT_STEP, SESSION_WINDOW, STREAM_WINDOW},
    },
    session::{ReadState, Write},
};

use crate::{
    hostile::{Hostile, data, text},
    pair::{Line, MS, Pair, SECOND},
};

const WINDOW: usize = STREAM_WINDOW as usize;
const ROLES: [Role; 2] = [Role::Agent, Role::Client];
/// More than a window and what may be queued behind it: most of it waits.
const MUCH: usize = 400_000;

fn pair() -> Pair {
    Pair::new(Line::new(10 * MS, 12_500_000))
}

/// A stream whose windows and queues are full both ways.
fn full(opener: Role) -> (Pair, u32) {
    let mut pair = pair();
    let id = pair.open(opener);
    pair.run(SECOND);
    for role in ROLES {
        pair.write(role, id, &[1; MUCH]);
    }
    pair.run(SECOND);
    (pair, id)
}

fn assert_gone(pair: &Pair, what: &str) {
    pair.ok();
    for end in [&pair.agent.session, &pair.client.session] {
        let audit = end.audit();
        assert_eq!((end.streams(), audit.queued, audit.control), (0, 0, 0), "{what}: {}", end.role());
        assert_eq!((audit.session_allowance, audit.growth_left), (SESSION_WINDOW, GROWTH_MAX), "{what}");
        assert!(audit.session_credit > SESSION_WINDOW - SESSION_CREDIT_STEP, "{what}");
    }
}

#[test]
fn a_stream_that_is_full_both_ways_is_gone_at_both_ends_once_either_lets_go_of_it() {
    for case in 0..128_u32 {
        let bit = |n: u32| case >> n & 1 == 1;
        let (opener, first) = (ROLES[usize::from(bit(0))], ROLES[usize::from(bit(1))]);
        let what = format!("{opener} opens, {first} lets go first, {case:b}");
        let (mut pair, id) = full(opener);
        for (n, role) in ROLES.into_iter().enumerate() {
            if bit(2 + n as u32) {
                pair.finish(role, id);
            }
        }
        for (n, role) in [first, first.peer()].into_iter().enumerate() {
            pair.release(role, id, bit(4 + n as u32).then_some("gone"));
            pair.run(if bit(6) { 2 * SECOND } else { MS });
        }
        // Long before either gives the other up.
        pair.run(RELEASED_UNTAKEN / 3);
        assert_gone(&pair, &what);
    }
}

#[test]
fn an_end_that_cannot_read_before_it_has_written_goes_on_when_the_other_lets_go() {
    // `kubectl exec -i pod -- cat <big | less`, and `less` is left.
    const ALL: usize = 3 << 20;
    for reason in [Some("gone"), None] {
        let mut pair = pair();
        let id = pair.open(Role::Client);
        pair.write(Role::Client, id, &vec![1; ALL]);
        let mut read = 0;
        let mut echo = |pair: &mut Pair| {
            while !pair.agent.session.is_full(id) {
                let (chunk, state) = pair.read_up_to(Role::Agent, id, 1);
                read += chunk.len();
                pair.write(Role::Agent, id, &chunk);
                if chunk.is_empty() {
                    return (read, state);
                }
            }
            (read, ReadState::Open)
        };
        let stuck = pair.now + 60 * SECOND;
        while pair.step(stuck) {
            echo(&mut pair);
        }
        assert_eq!(echo(&mut pair).1, ReadState::Open);
        pair.release(Role::Client, id, reason);
        let until = pair.now + RELEASED_UNTAKEN / 3;
        let mut last = echo(&mut pair);
        while pair.step(until) {
            last = echo(&mut pair);
        }
        let told = ReadState::Failed(reason.unwrap_or("closed").into());
        assert_eq!(last, (ALL, told), "all that was written before");
        pair.release(Role::Agent, id, None);
        pair.run(SECOND);
        assert_gone(&pair, "echo");
    }
}

#[test]
fn what_nobody_takes_is_given_up_with_the_stream() {
    // An end that never reads, whether it has nothing to say or says it without end: `exec -i pod -- yes <big | head`.
    for (reason, endless) in [(Some("gone"), false), (None, false), (Some("gone"), true)] {
        let mut pair = pair();
        let id = pair.open(Role::Client);
        pair.write(Role::Client, id, &[1; MUCH]);
        let say = |pair: &mut Pair| {
            while endless && pair.write(Role::Agent, id, &[2; 16_384]) == (Write::Taken { full: false }) {}
        };
        let go = |pair: &mut Pair, time| {
            let until = pair.now + time;
            while pair.step(until) {
                say(pair);
            }
        };
        say(&mut pair);
        go(&mut pair, 60 * SECOND);
        pair.release(Role::Client, id, reason);
        go(&mut pair, RELEASED_UNTAKEN - SECOND);
        assert_eq!(pair.client.session.audit().queued, MUCH - WINDOW);
        assert_eq!(pair.client.session.audit().growth_left, GROWTH_MAX, "nobody is quick to read there");
        go(&mut pair, 2 * SECOND);
        assert_eq!(pair.client.session.audit().queued, 0);
        // It never looks complete.
        let told = ReadState::Failed(reason.unwrap_or("closed").into());
        let (bytes, state) = pair.read(Role::Agent, id);
        assert_eq!((bytes.len(), state), (WINDOW, told));
        pair.release(Role::Agent, id, None);
        pair.run(SECOND);
        assert_gone(&pair, "never read");
    }
}

#[test]
fn each_stream_that_nobody_takes_is_given_up_in_its_own_time() {
    let mut pair = pair();
    let ids = [(); 2].map(|()| {
        let id = pair.open(Role::Client);
        pair.write(Role::Client, id, &[1; MUCH]);
        id
    });
    pair.run(SECOND);
    pair.release(Role::Client, ids[0], None);
    pair.run(10 * SECOND);
    pair.release(Role::Client, ids[1], None);
    let moment = Duration::from_micros(1);
    pair.run(RELEASED_UNTAKEN - 10 * SECOND - moment);
    for (time, left) in [(moment, 1), (10 * SECOND - moment, 1), (moment, 0)] {
        pair.run(time - moment);
        pair.now = pair.now + moment;
        pair.client.session.handle_timeout(pair.now);
        assert_eq!(pair.client.session.audit().queued, left * (MUCH - WINDOW));
    }
    pair.ok();
}

#[test]
fn what_a_slow_line_still_takes_of_a_failed_stream_is_not_given_up() {
    let mut pair = Pair::new(Line::new(MS, 20_000));
    let id = pair.open(Role::Client);
    pair.write(Role::Client, id, &[1; 2 * MUCH]);
    pair.release(Role::Client, id, Some("gone"));
    let (mut read, mut last) = (0, ReadState::Open);
    for _ in 0..2 * RELEASED_UNTAKEN.as_secs() {
        pair.run(SECOND);
        let (bytes, state) = pair.read(Role::Agent, id);
        (read, last) = (read + bytes.len(), state);
    }
    assert_eq!((read, last), (2 * MUCH, ReadState::Failed("gone".into())));
}

#[test]
fn a_slow_reader_of_a_failed_stream_is_waited_for_as_long_as_it_reads() {
    let mut pair = pair();
    let id = pair.open(Role::Client);
    pair.write(Role::Client, id, &[1; MUCH]);
    pair.run(60 * SECOND);
    pair.release(Role::Client, id, Some("gone"));
    let (mut read, mut last) = (0, ReadState::Open);
    // What it has read counts when it comes back for more.
    for _ in 0..20 {
        pair.run(RELEASED_UNTAKEN * 2 / 5);
        let (bytes, state) = pair.read_up_to(Role::Agent, id, STREAM_WINDOW / 4);
        (read, last) = (read + bytes.len(), state);
    }
    assert_eq!((read, last), (MUCH, ReadState::Failed("gone".into())));
}

#[test]
fn what_is_complete_is_waited_for_however_long_its_reader_takes() {
    // `kubectl logs pod | less`.
    let mut pair = pair();
    let id = pair.open(Role::Client);
    pair.finish(Role::Client, id);
    pair.run(SECOND);
    pair.read(Role::Agent, id);
    pair.write(Role::Agent, id, &[1; MUCH]);
    pair.finish(Role::Agent, id);
    pair.release(Role::Agent, id, None);
    pair.run(100 * RELEASED_UNTAKEN);
    let (mut read, mut last) = (0, ReadState::Open);
    for _ in 0..10 {
        pair.run(SECOND);
        let (bytes, state) = pair.read(Role::Client, id);
        (read, last) = (read + bytes.len(), state);
    }
    assert_eq!((read, last), (MUCH, ReadState::Eof));
    pair.release(Role::Client, id, None);
    pair.run(SECOND);
    assert_gone(&pair, "complete");
}

#[test]
fn what_was_sent_of_a_narrow_stream_keeps_nothing_of_what_was_not() {
    // The peer gives no more credit, says that the stream is over, and acknowledges nothing.
    let mut peer = crate::hostile::Hostile::against(Role::Agent);
    peer.say_text("new:1:?narrow").unwrap();
    let payload = Bytes::from(vec![0; 65_536]);
    peer.session.write(peer.now, 1, payload.clone());
    peer.hear();
    assert_eq!(peer.session.audit().kept_bytes, NARROW_WINDOW);
    peer.say_text("done:1:x").unwrap();
    assert!(payload.is_unique(), "a quarter of it counts, all of it is in memory");
}

#[test]
fn an_end_of_before_that_gives_no_credit_for_what_it_drops_keeps_nobody() {
    // It says `done` at once when it lets go, and drops what waited.
    let mut peer = crate::hostile::Hostile::against(Role::Agent);
    peer.say_text("new:1").unwrap();
    peer.session.write(peer.now, 1, Bytes::from(vec![0; MUCH]));
    peer.hear();
    peer.session.release(peer.now, 1, Some("gone"));
    assert!(!peer.texts().iter().any(|text| text.starts_with("done")), "most of it waits for credit");
    peer.say_text("done:1:closed").unwrap();
    // What it acknowledges makes room for the word.
    peer.say(&[crate::hostile::upkeep("ack:1")]).unwrap();
    assert_eq!(peer.texts(), ["done:1:gone"]);
    assert_eq!(peer.session.streams(), 0);
}

#[test]
fn that_the_other_end_has_failed_a_stream_is_known_before_it_is_read_and_not_told_of_what_is_whole() {
    let mut peer = Hostile::against(Role::Agent);
    for id in [1, 3, 5] {
        peer.say(&[text(&format!("new:{id}")), data(id, b"unread")]).unwrap();
        assert_eq!(peer.session.failure(id), None);
    }
    peer.say(&[text("done:1:gone"), text("done:3"), text("eof:5"), text("done:5:gone")]).unwrap();
    assert_eq!([1, 3, 5].map(|id| peer.session.failure(id)), [Some("gone"), None, None]);
}
