//! The round trip, and what follows from how long it is.

use std::time::Duration;

use mykube_protocol::limits::ACK_DELAY;

use super::{filter::Windowed, units::micros};
use crate::time::Time;

const RTT_HALF_LIFE: Duration = Duration::from_secs(10);
/// On longer paths than this bulk is paced and acknowledgements are few. On shorter ones turns of the processor are the slow part.
const LONG_PATH: Duration = Duration::from_millis(4);
/// On long paths at most this many acknowledgements come in a round trip, and the cap has room for what comes meanwhile. More
/// small packets under way make the window of a TCP that sends nothing else grow, and from sixteen on cubic leaves slow start when
/// round trips become longer (`HyStart`), as they do by the queue of what comes the other way: what it sends later then begins at a
/// hundred packets and grows by the second.
const ACKS_A_ROUND_TRIP: u32 = 5;

/// What pings have measured.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    min: Windowed<Duration>,
}

impl RoundTrip {
    /// A round trip was measured. Gives whether it was as short as the shortest, or nearly.
    pub(super) fn handle_rtt(&mut self, now: Time, rtt: Duration) -> bool {
        self.smoothed = Some(self.smoothed.map_or(rtt, |old| (old * 7 + rtt) / 8));
        let is_near_min = self.min().is_none_or(|best| rtt <= best + best / 8);
        self.min.add(now.as_micros(), micros(RTT_HALF_LIFE), rtt, |a, b| a < b);
        is_near_min
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(super) fn min(&self) -> Option<Duration> {
        self.min.best(|a, b| a < b)
    }

    /// The shortest round trip of a long path.
    pub(super) fn of_long_path(&self) -> Option<Duration> {
        self.min().filter(|rtt| *rtt >= LONG_PATH)
    }

    /// Between two acknowledgements of what comes in at least this much time passes, on this end as on the other.
    pub(super) fn ack_interval(&self) -> Duration {
        self.of_long_path().map_or(Duration::ZERO, |rtt| rtt / ACKS_A_ROUND_TRIP)
    }

    /// What comes in is acknowledged after this much time at the latest.
    pub(super) fn ack_delay(&self) -> Duration {
        ACK_DELAY.max(self.ack_interval())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    #[test]
    fn round_trips_are_smoothed_and_the_shortest_of_the_newest_is_the_paths() {
        let mut path = RoundTrip::default();
        assert_eq!((path.smoothed(), path.min()), (None, None));
        assert!(path.handle_rtt(at(0), 80 * MS));
        assert_eq!((path.smoothed(), path.min()), (Some(80 * MS), Some(80 * MS)));
        assert!(!path.handle_rtt(at(1), 160 * MS));
        assert_eq!((path.smoothed(), path.min()), (Some(90 * MS), Some(80 * MS)));
        assert!(path.handle_rtt(at(2), 90 * MS) && !path.handle_rtt(at(3), 91 * MS), "nearly as short");
        assert!(path.handle_rtt(at(4), 40 * MS));
        assert_eq!(path.min(), Some(40 * MS));
        assert!(!path.handle_rtt(at(10_000), 100 * MS));
        assert_eq!(path.min(), Some(40 * MS), "of the ten seconds before");
        path.handle_rtt(at(20_000), 100 * MS);
        assert_eq!(path.min(), Some(100 * MS));
    }

    #[test]
    fn acknowledgements_are_few_on_a_long_path() {
        let delays = |rtt: Duration| {
            let mut path = RoundTrip::default();
            path.handle_rtt(at(0), rtt);
            (path.of_long_path(), path.ack_interval(), path.ack_delay())
        };
        let short = Duration::from_micros(3999);
        assert_eq!(delays(short), (None, Duration::ZERO, ACK_DELAY));
        assert_eq!(delays(4 * MS), (Some(4 * MS), Duration::from_micros(800), ACK_DELAY));
        assert_eq!(delays(200 * MS), (Some(200 * MS), 40 * MS, 40 * MS));
    }
}
