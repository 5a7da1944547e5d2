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

#[cfg(test)]
mod tests {
    use super::*;

    /// An acknowledgement with which a round trip ends.
    fn round(rate: u64) -> Sample {
        Sample { rate, queued: false, new_round: true, limited_by_application: false }
    }

    fn within(rate: u64, queued: bool) -> Sample {
        Sample { queued, new_round: false, ..round(rate) }
    }

    #[test]
    fn a_rate_that_has_not_grown_by_a_quarter_for_three_round_trips_is_the_lines() {
        let mut startup = Startup::new();
        for rate in [100, 124, 124, 125, 125, 155] {
            startup.handle_sample(&round(rate));
            startup.handle_sample(&within(rate, false));
            startup.handle_sample(&Sample { limited_by_application: true, ..round(rate) });
            assert!(!startup.is_over(), "{rate}");
        }
        startup.handle_sample(&round(50));
        assert!(startup.is_over());
    }

    #[test]
    fn a_line_that_has_become_slower_may_become_quicker_again() {
        let mut startup = Startup::new();
        for rate in [100, 100, 100, 50] {
            startup.handle_sample(&round(rate));
        }
        assert!(startup.is_over());
        startup.handle_sample(&round(62));
        assert!(startup.is_over(), "less than it was known to take");
        startup.handle_sample(&round(76));
        assert!(startup.is_over());
        startup.handle_sample(&round(95));
        assert!(!startup.is_over(), "a quarter more than a round trip ago");
    }

    #[test]
    fn a_queue_that_stands_for_a_round_trip_ends_it_at_once() {
        let mut startup = Startup::new();
        startup.handle_sample(&round(100));
        startup.handle_sample(&within(110, false));
        assert!(!startup.is_queued());
        startup.handle_sample(&Sample { queued: true, ..round(110) });
        assert!(startup.is_queued() && !startup.is_over(), "one acknowledgement found no queue");
        startup.handle_sample(&within(110, true));
        assert!(!startup.is_over(), "the round trip has not ended");
        startup.handle_sample(&Sample { queued: true, ..round(110) });
        assert!(startup.is_over());
    }
}
