//! How soon after one another bulk leaves.

use std::time::Duration;

use super::units::micros;
use crate::time::Time;

/// On long paths a cap's worth of bulk is spread over a round trip, less this part of it to catch up (over a third of it while
/// bulk finds out what the line takes), but for a burst. All of it at once, when a lost packet's gap is closed and everything
/// acknowledged, is more than queues hold, and the next packet is lost.
const PACE_BEYOND: u64 = 5;

/// What a long path takes in a round trip.
pub(super) struct Spread {
    pub(super) rtt: Duration,
    /// Bytes that are spread over it.
    pub(super) cap: u64,
    /// What the line takes is not known yet.
    pub(super) starting: bool,
    /// What may leave at once, as time.
    pub(super) burst: Duration,
}

/// The pace of one direction.
#[derive(Debug)]
pub(super) struct Pacer {
    /// By then what was sent is on the line at the pace.
    until: Time,
}

impl Pacer {
    pub(super) fn new(now: Time) -> Self {
        Self { until: now }
    }

    /// Payload leaves, on a long path.
    pub(super) fn handle_sent(&mut self, now: Time, bytes: u64, spread: &Spread) {
        let takes = u128::from(micros(spread.rtt)) * u128::from(bytes) / u128::from(spread.cap.max(1));
        let takes = u64::try_from(takes).unwrap_or(u64::MAX);
        let takes = if spread.starting { takes / 3 } else { takes - takes / PACE_BEYOND };
        let burst = Time::from_micros(now.as_micros().saturating_sub(micros(spread.burst)));
        self.until = self.until.max(burst) + Duration::from_micros(takes);
    }

    /// When bulk may go on.
    pub(super) fn until(&self) -> Time {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caps_worth_is_spread_over_a_round_trip_but_for_a_burst() {
        let ms = Duration::from_millis;
        let spread = Spread { rtt: ms(100), cap: 1_000_000, starting: false, burst: ms(4) };
        let (mut pacer, now) = (Pacer::new(Time::default()), Time::from_micros(1_000_000));
        pacer.handle_sent(now, 10_000, &spread);
        assert_eq!(pacer.until(), Time::from_micros(996_000 + 800));
        pacer.handle_sent(now, 10_000, &spread);
        assert_eq!(pacer.until(), Time::from_micros(996_000 + 2 * 800));
        pacer.handle_sent(now, 10_000, &Spread { starting: true, ..spread });
        assert_eq!(pacer.until(), Time::from_micros(996_000 + 2 * 800 + 333));
    }
}
