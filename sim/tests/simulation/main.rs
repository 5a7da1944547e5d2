//! A week of trouble: two real ends on a virtual clock, a relay that decides with the real `relay/core`, restarts, replays and
//! forges, others who want the same place, and networks that cut, stall and fall silent. What is delivered is checked against a
//! model of what was sent.
//!
//! `MYKUBE_SIM_SEED=n` repeats one schedule, with `MYKUBE_SIM_TRACE=1` telling what happens in it;
//! `MYKUBE_SIM_SCHEDULES=n` sets how many there are, `MYKUBE_SIM_FIRST=n` where they begin. `just simulate 100000`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod books;
mod model;
mod net;
mod relay;
mod world;

use std::{
    ops::Range,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use world::{Totals, World};

/// Enough for a week of simulated time; a few seconds of CPU.
const SCHEDULES: u64 = 3000;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn number<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|value| value.parse().ok().unwrap_or_else(|| panic!("{name} is no number: {value}")))
}

/// Says how to repeat what failed, and lets nobody begin another.
struct Seed<'a>(u64, &'a AtomicU64);

impl Drop for Seed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.store(u64::MAX / 2, Ordering::Relaxed);
            eprintln!("failed; to repeat it: MYKUBE_SIM_SEED={} cargo test -p mykube-sim --test simulation", self.0);
        }
    }
}

/// Schedules one after the other, on every processor.
fn schedules(seeds: Range<u64>) -> Totals {
    let next = AtomicU64::new(seeds.start);
    let one_after_the_other = || {
        let mut totals = Totals::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return totals;
            }
            let seed = Seed(seed, &next);
            World::new(seed.0, false).run(&mut totals);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one_after_the_other)).collect();
        let mut totals = Totals::default();
        for thread in threads {
            totals += thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        totals
    })
}

#[test]
fn a_week_of_trouble_loses_nothing() {
    if let Some(seed) = number("MYKUBE_SIM_SEED") {
        let mut totals = Totals::default();
        World::new(seed, std::env::var_os("MYKUBE_SIM_TRACE").is_some()).run(&mut totals);
        println!("{totals}");
        return;
    }
    let (wanted, first) = (number("MYKUBE_SIM_SCHEDULES"), number("MYKUBE_SIM_FIRST").unwrap_or(0));
    let totals = schedules(first..first + wanted.unwrap_or(SCHEDULES));
    println!("{totals}");
    if wanted.is_none() {
        assert!(totals.time >= WEEK, "{totals}");
        assert!(totals.shows_everything(), "something is never exercised: {totals}");
    }
}
