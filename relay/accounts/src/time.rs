//! Time as the database and tokens have it.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Milliseconds since 1970, UTC. What is kept in the database; tokens have whole seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since 1970. What is later than can be kept is the latest that can.
    #[must_use]
    pub fn from_secs(secs: u64) -> Self {
        Self(i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970; before it, 0.
    #[must_use]
    pub fn secs(self) -> u64 {
        u64::try_from(self.0.div_euclid(1000)).unwrap_or(0)
    }

    /// How long after `earlier`; nothing if it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for UnixTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_kept_in_milliseconds_and_shown_to_tokens_in_seconds() {
        let time = UnixTime::from_secs(1000) + Duration::from_millis(999);
        assert_eq!((time.millis(), time.secs()), (1_000_999, 1000));
        assert_eq!(time.since(UnixTime::from_secs(1000)), Duration::from_millis(999));
        assert_eq!(UnixTime::from_secs(1000).since(time), Duration::ZERO, "never negative");
        assert_eq!((time - Duration::from_secs(2000)).secs(), 0);
    }

    #[test]
    fn no_time_overflows() {
        let last = UnixTime::from_secs(u64::MAX);
        assert_eq!(last.millis(), i64::MAX);
        assert_eq!(last + Duration::MAX, last);
        assert_eq!((UnixTime::from_millis(i64::MIN) - Duration::MAX).millis(), i64::MIN);
    }
}
