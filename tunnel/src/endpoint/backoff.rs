//! When to dial next.

use std::time::Duration;

use rand_core::CryptoRng;

use crate::time::Time;

/// First delay, doubled with every failure.
const FIRST: Duration = Duration::from_millis(100);
/// In the first 30 s of an outage delays are at most [`SHORT`], then at most [`LONG`].
const EAGER: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);

/// The delays of one outage.
#[derive(Debug)]
pub(super) struct Backoff {
    since: Time,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(now: Time) -> Self {
        Self { since: now, next: FIRST }
    }

    /// The delay before the next attempt: doubled each time, with jitter of a half, so that ends which lost the same
    /// relay do not come back together.
    pub(super) fn next(&mut self, now: Time, rng: &mut impl CryptoRng) -> Duration {
        self.delay(now, 0.5 + 0.5 * f64::from(rng.next_u32()) / f64::from(u32::MAX))
    }

    fn delay(&mut self, now: Time, jitter: f64) -> Duration {
        let most = if now.since(self.since) < EAGER { SHORT } else { LONG };
        let delay = self.next.min(most);
        self.next = (delay * 2).min(LONG);
        delay.mul_f64(jitter)
    }

    /// The network changed: what failed before may work now.
    pub(super) fn hurry(&mut self, now: Time) {
        *self = Self::new(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eager_at_first_then_patient() {
        let mut backoff = Backoff::new(Time::default());
        let mut now = Time::default();
        let mut delays = Vec::new();
        for _ in 0..40 {
            let delay = backoff.delay(now, 1.0);
            delays.push(delay.as_millis());
            now = now + delay;
        }
        assert_eq!(delays[..6], [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(delays[39], 10_000);
        let late = delays.iter().position(|delay| *delay > 1000).unwrap();
        assert_eq!(delays[..late].iter().sum::<u128>() / 1000, 30, "a second at most for half a minute");
        backoff.hurry(now);
        assert_eq!(backoff.delay(now, 0.5), FIRST / 2);

        let mut backoff = Backoff::new(Time::default());
        for _ in 0..10 {
            backoff.delay(Time::default(), 1.0);
        }
        assert_eq!(backoff.delay(Time::default() + EAGER, 1.0), SHORT * 2, "patient from then on");
    }

    #[test]
    fn jitter_is_at_most_a_half_and_differs() {
        let mut rng = rand::rng();
        let delays: Vec<_> = (0..1000).map(|_| Backoff::new(Time::default()).next(Time::default(), &mut rng)).collect();
        assert!(delays.iter().all(|delay| (FIRST / 2..=FIRST).contains(delay)), "{delays:?}");
        let short = delays.iter().filter(|delay| **delay < FIRST * 3 / 4).count();
        assert!((1..1000).contains(&short), "of 1000 equally likely to be long or short");
    }
}
