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

/// For how long an end has said nothing; a new one whenever bytes come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent(Duration);

/// What follows from a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The end is to be pinged.
    Ping,
    /// Nobody is there any more.
    GiveUp,
}

impl Silent {
    /// How long until [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn wait(self, limits: Silence) -> Duration {
        limits.ping_interval.min(limits.limit.saturating_sub(self.0))
    }

    /// That time has passed, and nothing came.
    pub fn handle_timeout(&mut self, limits: Silence) -> Verdict {
        self.0 += self.wait(limits);
        if self.0 >= limits.limit { Verdict::GiveUp } else { Verdict::Ping }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_come_before_the_end_and_the_last_wait_is_not_too_long() {
        let limits = Silence { ping_interval: Duration::from_secs(20), limit: Duration::from_secs(45) };
        let mut silent = Silent::default();
        let looks = [(); 3].map(|()| (silent.wait(limits).as_secs(), silent.handle_timeout(limits)));
        assert_eq!(looks, [(20, Verdict::Ping), (20, Verdict::Ping), (5, Verdict::GiveUp)]);
    }
}
