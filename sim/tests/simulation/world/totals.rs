//! What all schedules together went through.

use std::{collections::BTreeMap, fmt, ops::AddAssign, time::Duration};

pub(super) const TROUBLES: [&str; 21] = [
    "cut",
    "closed",
    "silent",
    "half open",
    "relay restart",
    "offline",
    "suspended",
    "stalled reader",
    "other path",
    "drained",
    "login page",
    "tickets renewed",
    "stranger",
    "network changed",
    "stuck",
    "crowded",
    // Only of a hostile relay:
    "replayed",
    "forged",
    "swallowed",
    "spurious text",
    "reflected",
];
pub(super) const HONEST: usize = 16;

/// Counts of which each must be above zero after all schedules, with what they count.
macro_rules! counts {
    ($($name:ident: $what:literal,)*) => {
        #[derive(Clone, Copy, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: u64,)*
        }

        impl Counts {
            fn each(self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($what, self.$name)),*].into_iter()
            }
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    attaches: "attaches",
    frames: "frames",
    bytes: "bytes delivered and compared",
    unpaired: "never paired",
    late_proofs: "paired over an attach",
    forged: "ended as tampered with",
    silences: "silences noticed",
    relay_silences: "of the relay noticed",
    pongs: "pongs of the relay",
    beside: "dials beside a connection",
    replaced: "of them replaced it",
    echoes: "given up and admitted",
    explained: "replacements explained by one of those",
    owed: "changes of the network that waited",
    late: "frames too late",
    jumps: "suspends that a clock told",
    windows: "windows over",
    finals: "final words of the relay",
    refusals: "tickets refused",
    asked: "pings of the relay answered",
    given_up: "ends that the relay has given up as silent",
    waited: "places waited for",
    asked_anew: "pairings that the relay was told again",
    lies: "made-up attempts refused",
    tickets: "tickets",
    expired: "tickets that had expired",
    strangers: "strangers at the code",
    not_found: "claims of a nameplate that nobody has",
    refused: "wrong secrets",
    spent: "codes that were spent",
    supplanted: "places lost to another client",
    races: "races for a code",
    lost_races: "of them lost to another that knew the code",
    too_many_requests: "claims too many",
    crowds: "owners with too many sessions",
    organisations: "of them organisations",
    sent_away: "ends sent away for those",
}

/// What all schedules together went through.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) schedules: u64,
    pub(crate) time: Duration,
    pub(super) counts: Counts,
    pub(super) troubles: BTreeMap<&'static str, u64>,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.time += other.time;
        self.counts += other.counts;
        for (name, n) in other.troubles {
            *self.troubles.entry(name).or_default() += n;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.time.as_secs() as f64 / 3600.0;
        write!(f, "{} schedules, {hours:.1} simulated hours", self.schedules)?;
        self.counts.each().try_for_each(|(what, n)| write!(f, ", {n} {what}"))?;
        write!(f, "; {:?}", self.troubles)
    }
}

impl Totals {
    /// Whether everything that can happen did, so that a passing run says something.
    pub(crate) fn shows_everything(&self) -> bool {
        self.troubles.len() == TROUBLES.len()
            && self.counts.each().all(|(_, n)| n > 0)
            && self.counts.unpaired < self.schedules / 10
    }
}
