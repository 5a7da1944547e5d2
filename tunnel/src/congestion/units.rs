//! Bytes, seconds, and how they meet.

use std::time::Duration;

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What comes in `time` at `rate` bytes a second.
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_a_rate_times_a_time() {
        let ms = Duration::from_millis;
        assert_eq!((micros(ms(2)), micros(Duration::MAX)), (2000, u64::MAX));
        assert_eq!((bytes_in(3_000_000, ms(2)), bytes_in(u64::MAX, ms(2000))), (6000, u64::MAX));
    }
}
