//! How long a socket may be silent. The caller measures, and only while it listens: an end whose peer is slow is not read.

use std::time::Duration;

/// When an end that says nothing is pinged, and when it is given up.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// After so long, and after each further time so long.
    pub ping_interval: Duration,
    /// After so long in all, not even a pong having come.
    pub limit: Duration,
}

impl Silence {
    /// After so long a silence: how long until the next look at it.
    #[must_use]
    pub fn next(self, silent: Duration) -> Duration {
        self.ping_interval.min(self.limit.saturating_sub(silent))
    }

    /// Whether after so long nobody is there any more; if not, the end is to be pinged.
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
