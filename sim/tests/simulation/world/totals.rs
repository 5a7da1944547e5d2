//! What all schedules together went through.

use std::{collections::BTreeMap, fmt, time::Duration};

pub(super) const TROUBLES: [&str; 20] = [
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
    // Only of a hostile relay:
    "replayed",
    "forged",
    "swallowed",
    "spurious text",
    "reflected",
];
pub(super) const HONEST: usize = 15;

/// What all schedules together went through.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) schedules: u64,
    pub(crate) time: Duration,
    pub(super) attaches: u64,
    pub(super) bytes: u64,
    pub(super) frames: u64,
    pub(super) troubles: BTreeMap<&'static str, u64>,
    /// Schedules that ended before they were paired, and by the fifth record in a row that was not the peer's.
    pub(super) unpaired: u64,
    pub(super) forged: u64,
    pub(super) late_proofs: u64,
    pub(super) silences: u64,
    /// Of the relay, to ends whose peer was away; and its answers.
    pub(super) relay_silences: u64,
    pub(super) pongs: u64,
    /// Dials beside a connection, and connections that such a dial has replaced.
    pub(super) beside: u64,
    pub(super) replaced: u64,
    /// Dials that were given up and admitted, and replacements that they explain.
    pub(super) echoes: u64,
    pub(super) explained: u64,
    /// Changes of the network that waited for the end of a connection.
    pub(super) owed: u64,
    /// Frames of connections that were let go of, and suspends that a clock told.
    pub(super) late: u64,
    pub(super) jumps: u64,
    /// Ends by the window, by the relay's final word, by a ticket that is not taken.
    pub(super) windows: u64,
    pub(super) finals: u64,
    pub(super) refusals: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.time.as_secs() as f64 / 3600.0;
        write!(
            f,
            "{} schedules, {hours:.1} simulated hours, {} attaches, {} frames, {} bytes delivered and compared; {} never \
             paired, {} paired over an attach, {} ended as tampered with, {} silences noticed, {} of the relay ({} pongs), \
             {} dials beside a connection ({} of them replaced it), {} given up and admitted ({} explained), {} changes of the network that waited, {} frames too late, {} jumps, {} windows over, \
             {} final words, {} refused; {:?}",
            self.schedules,
            self.attaches,
            self.frames,
            self.bytes,
            self.unpaired,
            self.late_proofs,
            self.forged,
            self.silences,
            self.relay_silences,
            self.pongs,
            self.beside,
            self.replaced,
            self.echoes,
            self.explained,
            self.owed,
            self.late,
            self.jumps,
            self.windows,
            self.finals,
            self.refusals,
            self.troubles
        )
    }
}

impl Totals {
    /// Whether everything that can happen did, so that a passing run says something.
    pub(crate) fn shows_everything(&self) -> bool {
        let rare = [self.unpaired, self.forged, self.late_proofs, self.silences, self.relay_silences, self.pongs];
        let dials = [self.beside, self.replaced, self.echoes, self.explained, self.owed, self.late, self.jumps];
        let ends = [self.windows, self.finals, self.refusals];
        self.troubles.len() == TROUBLES.len()
            && rare.iter().chain(&dials).chain(&ends).all(|n| *n > 0)
            && self.unpaired < self.schedules / 10
    }
}
