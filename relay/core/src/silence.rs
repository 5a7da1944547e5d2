//! How long a socket may be silent. The caller measures, and only while it listens: an end whose peer is slow is not read.

use std::time::Duration;

/// When an end that says nothing is pinged, and when it is given up.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// An end that has said nothing for this long is pinged, and again each time it has passed.
    pub ping_interval: Duration,
    /// An end that has said nothing for this long, not even a pong, is given up.
    pub limit: Duration,
}

impl Silence {
    /// How long until the next look at an end that has been `silent` for this time.
    #[must_use]
    pub fn next(self, silent: Duration) -> Duration {
        self.ping_interval.min(self.limit.saturating_sub(silent))
    }

    /// Whether an end that has been `silent` for this time is given up; if not, it is to be pinged.
    #[must_use]
    pub fn is_over(self, silent: Duration) -> bool {
        silent >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_come_before_the_end_and_the_last_wait_is_not_too_long() {
        let silence = Silence { ping_interval: Duration::from_secs(20), limit: Duration::from_secs(45) };
        let (mut silent, mut waits) = (Duration::ZERO, Vec::new());
        while !silence.is_over(silent) {
            waits.push(silence.next(silent).as_secs());
            silent += silence.next(silent);
        }
        assert_eq!(waits, [20, 20, 5]);
    }
}
