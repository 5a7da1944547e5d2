//! What acknowledgements make of how much may be under way: real sessions, and acknowledgements as records.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use mykube_tunnel::{
    Time,
    protocol::{
        Role,
        frame::kind,
        limits::{ACK_BYTES_MAX, RECORD_PLAINTEXT_MAX, SESSION_WINDOW},
    },
};

use crate::{
    fair::Bulk,
    hostile::{Hostile, text, upkeep},
    pair::{Line, MS, Pair, SECOND},
};

const MICRO: Duration = Duration::from_micros(1);
const RECORD: u64 = RECORD_PLAINTEXT_MAX as u64;
/// What may be under way before anything is known of the path, and the least ever.
const FLOOR: u64 = 64 * 1024;
/// Beyond the bandwidth-delay product: what comes in this time ...
const SLACK_TIME: Duration = Duration::from_millis(4);
/// ... but no more than this beside a stream with little to say, ...
const SLACK: u64 = ACK_BYTES_MAX;
/// ... that has spoken within this time.
const ALONE: Duration = Duration::from_millis(250);

fn bytes_in(rate: u64, time: Duration) -> u64 {
    rate * time.as_micros() as u64 / 1_000_000
}

/// A client's session that has more to send than it may. Its peer answers the first pings after `rtt`, gives all the credit
/// there can be, and acknowledges when it is told to.
struct Sender {
    peer: Hostile,
    bulk: u32,
    /// Numbered messages that came.
    heard: u64,
}

impl Sender {
    fn new(rtt: Duration) -> Self {
        let mut peer = Hostile::against(Role::Client);
        loop {
            let ping = peer.hear().into_iter().find_map(|(_, body)| {
                String::from_utf8(body).ok().and_then(|said| said.strip_prefix("ping:").map(str::to_owned))
            });
            let Some(n) = ping else { break };
            peer.now = peer.now + rtt;
            peer.say(&[upkeep(&format!("pong:{n}"))]).unwrap();
        }
        let mut sender = Self { peer, bulk: 0, heard: 0 };
        sender.bulk = sender.open();
        sender.peer.say(&[text("credit:0:1000000000")]).unwrap();
        sender
    }

    fn open(&mut self) -> u32 {
        let id = self.peer.session.open(self.peer.now, None).unwrap();
        self.hear();
        self.peer.say(&[text(&format!("credit:{id}:1000000000"))]).unwrap();
        id
    }

    fn write(&mut self, id: u32, len: usize) {
        self.peer.session.write(self.peer.now, id, Bytes::from(vec![0; len]));
    }

    /// Takes what the session says now: lengths of payload.
    fn hear(&mut self) -> Vec<u64> {
        let mut payload = Vec::new();
        for (kind, body) in self.peer.hear() {
            self.heard += u64::from(matches!(kind, kind::CONTROL | kind::DATA | kind::WELCOME));
            if kind == kind::DATA {
                payload.push(body.len() as u64 - 4);
            }
        }
        payload
    }

    /// Bytes of bulk that leave at this moment, with more behind them.
    fn burst(&mut self) -> u64 {
        while !self.peer.session.is_full(self.bulk) {
            self.write(self.bulk, 64 * 1024);
        }
        let mut sent = 0;
        loop {
            let more: u64 = self.hear().iter().sum();
            sent += more;
            if more == 0 {
                return sent;
            }
            self.write(self.bulk, more as usize);
        }
    }

    /// The same, and how many messages that is.
    fn counted_burst(&mut self) -> (u64, u64) {
        let before = self.heard;
        (self.burst(), self.heard - before)
    }

    /// Acknowledges all but the newest `late` messages that came, in a record.
    fn ack(&mut self, late: u64) {
        self.peer.say(&[upkeep(&format!("ack:{}", self.heard - late))]).unwrap();
    }

    fn wait(&mut self, time: Duration) {
        self.peer.now = self.peer.now + time;
    }

    fn cap(&self) -> u64 {
        self.peer.session.audit().cap
    }

    fn under_way(&self) -> u64 {
        let audit = self.peer.session.audit();
        assert_eq!(audit.under_way, audit.kept_bytes);
        audit.under_way
    }
}

#[test]
fn the_rate_is_what_an_acknowledgement_shows_and_the_cap_follows_it() {
    let mut sender = Sender::new(100 * MS);
    assert_eq!((sender.cap(), sender.peer.session.audit().rate), (FLOOR, None));
    assert_eq!(sender.peer.session.audit().min_rtt, Some(100 * MS));
    let sent = sender.burst();
    assert!(sent > 0 && sent < FLOOR, "{sent}: on a long path it is paced from the start");
    assert_eq!((sender.under_way(), sender.peer.session.unacknowledged() as u64), (sent, sender.heard));
    sender.wait(100 * MS);
    sender.ack(0);
    let rate = sent * 10;
    assert_eq!((sender.under_way(), sender.peer.session.unacknowledged()), (0, 0));
    assert_eq!(sender.peer.session.audit().rate, Some(rate));
    // Twice what the line holds while bulk finds out, a record, what comes in 4 ms, and between two acknowledgements.
    let expected = 2 * sent + RECORD + bytes_in(rate, SLACK_TIME) + bytes_in(rate, 20 * MS).saturating_sub(RECORD);
    assert_eq!(sender.cap(), expected.max(FLOOR));
    // A lower rate does not count against the best.
    sender.burst();
    sender.wait(40 * MS);
    let newest = sender.burst();
    sender.wait(SECOND);
    sender.ack(1);
    assert!((1..=newest).contains(&sender.under_way()));
    assert_eq!(sender.peer.session.audit().rate, Some(rate));
    sender.ack(0);
    // An acknowledgement of some bursts shows what came since the newest of them left, and not what came since the oldest did.
    let step = 30 * MS;
    sender.wait(step);
    let (first, _) = sender.counted_burst();
    sender.wait(step);
    let (second, messages) = sender.counted_burst();
    sender.wait(step);
    sender.ack(messages);
    assert_eq!(sender.under_way(), second);
    let (third, _) = sender.counted_burst();
    sender.wait(step);
    let (fourth, messages) = sender.counted_burst();
    sender.wait(step);
    sender.ack(messages);
    assert_eq!(sender.under_way(), fourth);
    assert!([first, second, third, fourth].iter().all(|sent| *sent > 0), "{first} {second} {third} {fourth}");
    let of_two_steps = |bytes: u64| u64::try_from(u128::from(bytes) * 1_000_000 / (2 * step).as_micros()).unwrap();
    let shown = of_two_steps(second + third);
    assert!(shown > rate.max(of_two_steps(first)), "{shown} is the best");
    assert_eq!(sender.peer.session.audit().rate, Some(shown));
}

#[test]
fn of_the_smallest_messages_no_more_is_under_way_than_a_window_takes() {
    // What a message counts for beside its payload (docs/protocol.md, "Fair, and quick").
    const MESSAGE: u64 = 128;
    // A peer that answers pings late and acknowledges at once, until it stops.
    let mut sender = Sender::new(4 * SECOND);
    let ids: Vec<u32> = (0..100).map(|_| sender.open()).collect();
    for _ in 0..20 {
        sender.burst();
        sender.wait(MS);
        sender.ack(0);
    }
    assert_eq!(sender.cap(), SESSION_WINDOW, "it shows a path that holds as much as there may be");
    assert_eq!(sender.under_way(), 0);
    let mut messages = 0;
    loop {
        ids.iter().for_each(|id| sender.write(*id, 1));
        let sent = sender.hear();
        messages += sent.iter().filter(|len| **len == 1).count() as u64;
        assert!(sent.iter().all(|len| *len == 1), "bulk is paced");
        if sent.len() < ids.len() {
            break;
        }
    }
    assert_eq!(messages, SESSION_WINDOW.div_ceil(1 + MESSAGE));
    // One more goes when one is acknowledged.
    sender.ack(messages - 1);
    assert_eq!(sender.hear(), [1]);
}

#[test]
fn a_slow_line_is_full_and_nothing_piles_up() {
    let (rate, rtt) = (1_250_000, 50 * MS);
    let mut pair = Pair::new(Line::new(rtt / 2, rate));
    let mut bulk = Bulk::new(&mut pair, Role::Client, 1);
    bulk.run(&mut pair, 15 * SECOND);
    let (mut got, mut worst) = (0, 0);
    for _ in 0..500 {
        got += bulk.run(&mut pair, 10 * MS);
        let audit = pair.client.session.audit();
        assert_eq!(audit.under_way, audit.kept_bytes);
        worst = worst.max(audit.under_way);
    }
    assert!(got > 5 * rate * 9 / 10, "{got}");
    let holds = bytes_in(rate, rtt);
    assert!(worst > holds && worst < holds + bytes_in(rate, 60 * MS), "{worst} under way, the line holds {holds}");
    assert!(pair.client.session.audit().min_rtt.unwrap() < rtt + 5 * MS);
}

#[test]
fn turns_that_take_longer_than_the_best_one_do_not_slow_a_quick_line_down() {
    // Best round trip 0.1 ms; with the processors busy, an acknowledgement takes 3 ms.
    let mut sender = Sender::new(100 * MICRO);
    for _ in 0..200 {
        sender.burst();
        sender.wait(3 * MS);
        sender.ack(0);
    }
    assert!(sender.cap() > SLACK, "{} under way at most", sender.cap());
}

/// A line of 20 MB/s and 200 ms carries bulk for `time`; then the peer acknowledges nothing until the cap is under way.
fn stalled(time: Duration) -> Sender {
    let (rate, rtt) = (20_000_000, 200 * MS);
    let mut sender = Sender::new(rtt);
    let (mut line_free, mut arrivals) = (sender.peer.now, VecDeque::new());
    let end = sender.peer.now + time;
    while sender.peer.now < end {
        let sent = sender.burst();
        if sent > 0 {
            line_free = line_free.max(sender.peer.now) + Duration::from_micros(sent * 1_000_000 / rate);
            arrivals.push_back((line_free + rtt, sender.heard));
        }
        let arrival = arrivals.front().map(|(at, _)| *at);
        let next = arrival.into_iter().chain(sender.peer.session.poll_timeout()).min().unwrap();
        sender.peer.now = sender.peer.now.max(next);
        while let Some((_, heard)) = arrivals.pop_front_if(|(at, _)| *at <= next) {
            sender.peer.say(&[upkeep(&format!("ack:{heard}"))]).unwrap();
        }
    }
    fill(&mut sender);
    sender
}

/// Sends on until the cap is reached. Gives when.
fn fill(sender: &mut Sender) -> Time {
    while sender.under_way() < sender.cap() {
        sender.burst();
        if sender.under_way() < sender.cap() {
            let due = sender.peer.session.poll_timeout().expect("it is told when to go on");
            assert!(due > sender.peer.now, "and not at once");
            sender.peer.now = due;
        }
    }
    sender.peer.now
}

#[test]
fn what_a_stall_has_held_back_is_spread_over_the_round_trip() {
    let mut sender = stalled(3 * SECOND);
    sender.wait(100 * MS);
    // A gap has closed, and everything is acknowledged.
    sender.ack(0);
    let (begun, rate) = (sender.peer.now, sender.peer.session.audit().rate.unwrap());
    assert!((19_000_000..22_000_000).contains(&rate), "{rate}");
    let at_once = sender.burst();
    assert!(at_once <= bytes_in(rate, SLACK_TIME) * 3 / 2 + 2 * RECORD, "{at_once} of {} at once", sender.cap());
    let took = fill(&mut sender).since(begun);
    assert!(took >= 100 * MS && took <= 200 * MS, "all of it within {took:?}");
}

#[test]
fn bulk_has_more_under_way_where_nobody_waits_behind_it() {
    // The cap on a quick path, `silence` after the newest word of a stream with little to say.
    let after = |silence: Duration| {
        let mut sender = Sender::new(100 * MICRO);
        let typed = sender.open();
        let sent = sender.burst();
        assert!((FLOOR..FLOOR + 2 * RECORD).contains(&sent), "{sent}");
        sender.wait(80 * MICRO);
        sender.ack(0);
        sender.write(typed, 1);
        sender.hear();
        sender.burst();
        sender.wait(silence);
        sender.ack(0);
        (sender, typed)
    };
    let ((beside, _), (mut alone, typed)) = (after(ALONE / 2), after(ALONE));
    let (little, much) = (beside.cap(), alone.cap());
    let rate = alone.peer.session.audit().rate.unwrap();
    assert!(rate >= 800_000_000, "{rate}");
    assert!(little < 3 * SLACK, "{little}");
    assert!(much > little + SLACK, "{much}, {little} beside one");
    // The first word of a stream that has little to say waits for no more than this, and ends it.
    assert!(much - little <= bytes_in(rate, SLACK_TIME), "{much}");
    alone.write(typed, 1);
    assert!(alone.hear().contains(&1));
    assert_eq!(alone.cap(), little);
}
