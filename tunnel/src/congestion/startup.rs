//! Bulk finds out what a line takes.

/// A rate that has not grown by a quarter for this many round trips is what the line gives.
const FLAT_ROUNDS: u32 = 3;

/// Bulk finds out what a line takes by doubling, until acknowledgements take longer than the best round trip. By then twice of
/// what the line holds may be under way, more than queues hold: so when one acknowledgement takes longer, which a burst can
/// cause, less is added, and when all of a round trip take longer, no more.
#[derive(Debug)]
pub(super) struct Startup {
    plateau: u64,
    flat_rounds: u32,
    /// The newest acknowledgement took longer than the path does, and all of the round trip's did.
    queued: bool,
    queue_stands: bool,
}

/// One acknowledgement, as far as it says what the line takes.
pub(super) struct Sample {
    /// The best of the newest rates, in bytes a second.
    pub(super) rate: u64,
    /// The acknowledgement took longer than the path does.
    pub(super) queued: bool,
    /// A round trip has ended with the acknowledgement.
    pub(super) new_round: bool,
    pub(super) limited_by_application: bool,
}

impl Startup {
    pub(super) fn new() -> Self {
        Self { plateau: 0, flat_rounds: 0, queued: false, queue_stands: true }
    }

    pub(super) fn handle_sample(&mut self, sample: &Sample) {
        let Sample { rate, queued, new_round, limited_by_application } = *sample;
        self.queued = queued;
        self.queue_stands &= queued;
        let stood = new_round && std::mem::replace(&mut self.queue_stands, true);
        if rate >= self.plateau.saturating_add(self.plateau / 4) {
            self.plateau = rate;
            self.flat_rounds = 0;
        } else if stood {
            // Where the rate still grows it is TCP that is not yet as quick as the line.
            self.plateau = rate;
            self.flat_rounds = self.flat_rounds.max(FLAT_ROUNDS);
        } else if new_round && !limited_by_application {
            self.flat_rounds = self.flat_rounds.saturating_add(1);
            self.plateau = if self.flat_rounds > FLAT_ROUNDS { rate } else { self.plateau };
        }
    }

    /// What the line takes is known.
    pub(super) fn is_over(&self) -> bool {
        self.flat_rounds >= FLAT_ROUNDS
    }

    /// The newest acknowledgement took longer than the path does.
    pub(super) fn is_queued(&self) -> bool {
        self.queued
    }
}
