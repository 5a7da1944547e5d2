//! Fair, quick for the person typing, and as fast as the line: all on virtual time, so every figure is exact.

use std::time::Duration;

use mykube_tunnel::{Time, protocol::Role, session::Write};

use crate::pair::{Line, MS, Pair, SECOND};

/// Streams that always have more to send and readers that take everything at once.
pub(crate) struct Bulk {
    ids: Vec<(Role, u32)>,
    got: Vec<u64>,
}

impl Bulk {
    pub(crate) fn new(pair: &mut Pair, from: Role, n: usize) -> Self {
        let ids: Vec<_> = (0..n).map(|_| (from, pair.open(Role::Client))).collect();
        Self { got: vec![0; n], ids }
    }

    /// What a driver does after every step.
    fn turn(&mut self, pair: &mut Pair) {
        static CHUNK: [u8; 32 * 1024] = [7; 32 * 1024];
        for ((from, id), got) in self.ids.iter().zip(&mut self.got) {
            while !pair.end(*from).session.is_full(*id) {
                if pair.write(*from, *id, &CHUNK) == Write::Over {
                    break;
                }
            }
            *got += pair.read(from.peer(), *id).0.len() as u64;
        }
    }

    pub(crate) fn run(&mut self, pair: &mut Pair, time: Duration) -> u64 {
        let before: u64 = self.got.iter().sum();
        let until = pair.now + time;
        self.turn(pair);
        while pair.step(until) {
            self.turn(pair);
        }
        pair.ok();
        self.got.iter().sum::<u64>() - before
    }
}

/// Jain's index: 1 when all are equal.
fn jain(got: &[u64]) -> f64 {
    let sum: f64 = got.iter().map(|x| *x as f64).sum();
    let squares: f64 = got.iter().map(|x| (*x as f64).powi(2)).sum();
    sum * sum / (got.len() as f64 * squares)
}

#[test]
fn bulk_streams_share_a_line_alike() {
    for n in [2, 5, 50] {
        let mut pair = Pair::new(Line::new(25 * MS, 1_250_000));
        let mut bulk = Bulk::new(&mut pair, Role::Client, n);
        bulk.run(&mut pair, 5 * SECOND);
        let before = bulk.got.clone();
        bulk.run(&mut pair, 20 * SECOND);
        let got: Vec<u64> = bulk.got.iter().zip(before).map(|(now, before)| now - before).collect();
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        assert!(most - least <= 3 * 16 * 1024, "{n} streams: from {least} to {most}");
        assert!(jain(&got) > 0.999, "{n} streams: {}", jain(&got));
    }
}

/// Keys typed beside bulk: from the keystroke to its echo, each once, in order of size.
fn echoes(pair: &mut Pair, bulk: &mut [Bulk], keys: usize) -> Vec<Duration> {
    let typed = pair.open(Role::Client);
    let mut waits = Vec::new();
    for _ in 0..keys {
        let sent = pair.now;
        pair.write(Role::Client, typed, b"k");
        let deadline = pair.now + 60 * SECOND;
        let mut echoed = None;
        while echoed.is_none() {
            assert!(pair.step(deadline), "no echo within a minute");
            let (at_agent, _) = pair.read(Role::Agent, typed);
            if !at_agent.is_empty() {
                pair.write(Role::Agent, typed, &at_agent);
            }
            echoed = (!pair.read(Role::Client, typed).0.is_empty()).then_some(pair.now);
            bulk.iter_mut().for_each(|bulk| bulk.turn(pair));
        }
        waits.push(echoed.unwrap_or(Time::default()).since(sent));
        // The next key, a little out of step with everything else.
        let next = pair.now + 97 * MS;
        while pair.step(next) {
            bulk.iter_mut().for_each(|bulk| bulk.turn(pair));
        }
    }
    pair.ok();
    waits.sort();
    waits
}

fn p99(waits: &[Duration]) -> Duration {
    waits[waits.len() * 99 / 100]
}

#[test]
fn a_keystroke_does_not_wait_behind_bulk_on_a_slow_line() {
    // 10 Mbit/s and 50 ms, a minute and more of typing, a transport that would queue 16 MiB.
    for (from, n) in [(Role::Client, 1), (Role::Client, 50), (Role::Agent, 1), (Role::Agent, 50)] {
        let mut pair = Pair::new(Line::new(25 * MS, 1_250_000));
        let mut bulk = [Bulk::new(&mut pair, from, n)];
        bulk[0].run(&mut pair, 2 * SECOND);
        let started = pair.now;
        let before: u64 = bulk[0].got.iter().sum();
        let waits = echoes(&mut pair, &mut bulk, 400);
        assert!(
            p99(&waits) <= 110 * MS,
            "{n} bulk streams from {from}: p99 {:?}, worst {:?}",
            p99(&waits),
            waits.last()
        );
        let got = bulk[0].got.iter().sum::<u64>() - before;
        let line = 1_250_000 * u64::try_from(pair.now.since(started).as_millis()).unwrap() / 1000;
        assert!(got > line * 9 / 10, "{n} bulk streams from {from}: {got} of {line} bytes");
    }
}

#[test]
fn a_keystroke_does_not_wait_behind_bulk_in_both_directions() {
    let mut pair = Pair::new(Line::new(25 * MS, 1_250_000));
    let mut bulk = [Bulk::new(&mut pair, Role::Client, 3), Bulk::new(&mut pair, Role::Agent, 3)];
    for _ in 0..20 {
        bulk.iter_mut().for_each(|bulk| {
            bulk.run(&mut pair, 100 * MS);
        });
    }
    let waits = echoes(&mut pair, &mut bulk, 600);
    assert!(p99(&waits) <= 200 * MS, "p99 {:?}, worst {:?}", p99(&waits), waits.last());
}

#[test]
fn a_stalled_reader_does_not_slow_typing_either() {
    let mut pair = Pair::new(Line::new(25 * MS, 1_250_000));
    let stalled: Vec<u32> = (0..20).map(|_| pair.open(Role::Client)).collect();
    for id in &stalled {
        pair.write(Role::Client, *id, &vec![0; 1 << 20]);
    }
    let mut bulk = [Bulk::new(&mut pair, Role::Client, 2)];
    bulk[0].run(&mut pair, 10 * SECOND);
    // They read a little now and then: each time they may go on, and none of it goes ahead of a key.
    let typed = pair.open(Role::Client);
    let mut worst = Duration::ZERO;
    for _ in 0..200 {
        for id in &stalled {
            pair.read_up_to(Role::Agent, *id, 70_000);
        }
        let sent = pair.now;
        pair.write(Role::Client, typed, b"k");
        while pair.read(Role::Agent, typed).0.is_empty() {
            assert!(pair.step(sent + 60 * SECOND));
            bulk[0].turn(&mut pair);
        }
        worst = worst.max(pair.now.since(sent));
        bulk[0].run(&mut pair, 100 * MS);
    }
    assert!(worst <= 110 * MS, "{worst:?}");
}

#[test]
fn a_fat_long_line_is_full_after_ten_round_trips() {
    // 500 Mbit/s and 200 ms: it holds 12.5 MB.
    let mut pair = Pair::new(Line::new(100 * MS, 62_500_000));
    pair.settle();
    let mut bulk = Bulk::new(&mut pair, Role::Client, 1);
    let early = bulk.run(&mut pair, 2 * SECOND);
    let got = bulk.run(&mut pair, 2 * SECOND);
    assert!(got >= 2 * 62_500_000 * 9 / 10, "{got} bytes in two seconds after {early} in the first two");
    // And it stays full, pauses for the round trip included.
    let got = bulk.run(&mut pair, 10 * SECOND);
    assert!(got >= 10 * 62_500_000 * 9 / 10, "{got} bytes in ten seconds");
}

#[test]
fn a_long_line_is_full_with_few_acknowledgements() {
    // Credit comes with them, a ping and a pong once a second beside them. TCP's first window is ten packets, of sixteen cubic
    // looks at round trips.
    for (delay, rate) in [(100, 62_500_000), (25, 62_500_000), (5, 125_000_000), (40, 6_250_000)] {
        let mut pair = Pair::new(Line::new(delay * MS, rate));
        pair.settle();
        let mut bulk = Bulk::new(&mut pair, Role::Agent, 1);
        let round_trips = 3000 / (2 * u64::from(delay));
        let mut got = 0;
        // From the start, with windows that are still small, and then with large ones.
        for windows in ["small", "large"] {
            let (begun, mut most) = (pair.client.sent_frames, 0);
            got = 0;
            for _ in 0..round_trips {
                let before = pair.client.sent_frames;
                got += bulk.run(&mut pair, 2 * delay * MS);
                most = most.max(pair.client.sent_frames - before);
            }
            let said = pair.client.sent_frames - begun;
            let what = format!("{delay} ms, {rate} B/s, {windows}: {said} in {round_trips}");
            assert!(most <= 7, "{what}, {most} in one");
            assert!(said > 2 * round_trips && said <= 11 * round_trips / 2, "{what}");
        }
        assert!(got >= 3 * rate * 9 / 10, "{delay} ms, {rate} B/s: {got} bytes");
    }
}

#[test]
fn a_tiny_round_trip_does_not_starve_a_fast_line() {
    // 50 µs and 1 GB/s, with acknowledgements that come by the 64 KiB.
    let mut pair = Pair::new(Line::new(Duration::from_micros(25), 1_000_000_000));
    let mut bulk = Bulk::new(&mut pair, Role::Agent, 1);
    bulk.run(&mut pair, 50 * MS);
    for n in 0..5 {
        let got = bulk.run(&mut pair, 100 * MS);
        assert!(got >= 50_000_000, "{got} bytes in the tenth of a second number {n}");
    }
}

#[test]
fn many_lines_are_filled_and_none_is_flooded() {
    for (delay, rate) in [(1, 125_000), (5, 1_250_000), (40, 12_500_000), (150, 1_250_000), (300, 250_000)] {
        let mut pair = Pair::new(Line::new(delay * MS, rate));
        let mut bulk = Bulk::new(&mut pair, Role::Client, 3);
        bulk.run(&mut pair, 10 * SECOND);
        let got = bulk.run(&mut pair, 20 * SECOND);
        assert!(got >= 20 * rate * 85 / 100, "{delay} ms, {rate} B/s: {got}");
        let waits = echoes(&mut pair, std::slice::from_mut(&mut bulk), 60);
        // The floor of 64 KiB under way, a record or two of its own, and what the line itself takes.
        let floor = Duration::from_micros(96 * 1024 * 1_000_000 / rate);
        let most = 2 * delay * MS + delay * MS * 5 / 2 + floor + 40 * MS;
        assert!(*waits.last().unwrap() <= most, "{delay} ms, {rate} B/s: {:?} > {most:?}", waits.last());
    }
}

#[test]
fn a_line_that_changes_is_followed() {
    let mut pair = Pair::new(Line::new(25 * MS, 1_250_000));
    let mut bulk = Bulk::new(&mut pair, Role::Client, 2);
    bulk.run(&mut pair, 10 * SECOND);
    pair.line.rate = 6_250_000;
    bulk.run(&mut pair, 5 * SECOND);
    let got = bulk.run(&mut pair, 10 * SECOND);
    assert!(got >= 10 * 6_250_000 * 85 / 100, "faster: {got}");
    pair.line.rate = 625_000;
    bulk.run(&mut pair, 10 * SECOND);
    let waits = echoes(&mut pair, std::slice::from_mut(&mut bulk), 50);
    assert!(p99(&waits) <= 350 * MS, "slower: {:?}", p99(&waits));
    pair.line.delay = 100 * MS;
    bulk.run(&mut pair, 25 * SECOND);
    let got = bulk.run(&mut pair, 10 * SECOND);
    assert!(got >= 10 * 625_000 * 85 / 100, "farther: {got}");
}
