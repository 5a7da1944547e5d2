//! A week of trouble: two real ends on a virtual clock, a relay that decides with the real `relay/core`, restarts, replays and
//! forges, others who want the same place, and networks that cut, stall and fall silent. What is delivered is checked against a
//! model of what was sent.
//!
//! `MYKUBE_SIM_SEED=n` repeats one schedule, with `MYKUBE_SIM_TRACE=1` telling what happens in it;
//! `MYKUBE_SIM_SCHEDULES=n` sets how many there are, `MYKUBE_SIM_FIRST=n` where they begin. `just simulate 100000`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod model;
mod net;
mod relay;
mod world;

use std::{str::FromStr, time::Duration};

use world::{Totals, World};

/// Enough for a week of simulated time; a few seconds of CPU.
const SCHEDULES: u64 = 3000;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn number<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|value| value.parse().ok().unwrap_or_else(|| panic!("{name} is no number: {value}")))
}

/// Says how to repeat what failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed; to repeat it: MYKUBE_SIM_SEED={} cargo test -p mykube-sim --test simulation", self.0);
        }
    }
}

fn schedule(seed: u64, trace: bool, totals: &mut Totals) {
    let _seed = Seed(seed);
    World::new(seed, trace).run(totals);
}

#[test]
fn a_week_of_trouble_loses_nothing() {
    let mut totals = Totals::default();
    if let Some(seed) = number("MYKUBE_SIM_SEED") {
        schedule(seed, std::env::var_os("MYKUBE_SIM_TRACE").is_some(), &mut totals);
        println!("{totals}");
        return;
    }
    let (schedules, first) = (number("MYKUBE_SIM_SCHEDULES"), number("MYKUBE_SIM_FIRST").unwrap_or(0));
    for seed in first..first + schedules.unwrap_or(SCHEDULES) {
        schedule(seed, false, &mut totals);
    }
    println!("{totals}");
    if schedules.is_none() {
        assert!(totals.time >= WEEK, "{totals}");
        assert!(totals.shows_everything(), "something is never exercised: {totals}");
    }
}
