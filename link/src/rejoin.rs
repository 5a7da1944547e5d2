//! Back to the relay after a lost connection: with which ticket, how often, and when not at all.

use std::time::Duration;

use mykube_protocol::{
    Attempt, SessionId, Ticket,
    close::{self, Stage, verdict},
};
use mykube_tunnel::Time;
use rand::RngExt;

use crate::{Dialer, clock, pair::SocketLost};

/// First delay, doubled with every failure.
const FIRST: Duration = Duration::from_millis(100);
/// For so long delays are at most [`SHORT`], then at most [`LONG`].
const EAGER: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);

/// What an end needs to come back to its session over another connection.
#[derive(Clone, Debug)]
pub struct Rejoin {
    /// The relay.
    pub dialer: Dialer,
    /// The session.
    pub session: SessionId,
    /// The claim that was paired.
    pub attempt: Attempt,
    /// A ticket of this session to begin with; the channel keeps the newest.
    pub ticket: Ticket,
    /// How long the session outlives its transport (`--resume-window`). Zero: it ends with it.
    pub window: Duration,
}

/// Whether a session is over when its connection is closed like this, if this end has not opened the one that replaced it.
pub(crate) fn is_final(lost: &SocketLost) -> bool {
    verdict(lost.code(), Stage::Session).is_final()
}

/// The delay a relay that restarts asks for.
pub(crate) fn asked_delay(lost: &SocketLost) -> Option<Duration> {
    match lost {
        SocketLost::Closed { reason, .. } => close::retry_after(reason),
        SocketLost::Broken(_) => None,
    }
}

/// When to dial next.
#[derive(Debug)]
pub(crate) struct Backoff {
    since: Time,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(now: Time) -> Self {
        Self { since: now, next: FIRST }
    }

    /// The delay before the next attempt: doubled each time, with jitter of a half, so that ends which lost the same
    /// relay do not come back together.
    pub(crate) fn next(&mut self, now: Time) -> Duration {
        self.delay(now, rand::rng().random_range(0.5..=1.0))
    }

    fn delay(&mut self, now: Time, jitter: f64) -> Duration {
        let most = if now.since(self.since) < EAGER { SHORT } else { LONG };
        let delay = self.next.min(most);
        self.next = (delay * 2).min(LONG);
        delay.mul_f64(jitter)
    }

    /// The network changed: what failed before may work now.
    pub(crate) fn hurry(&mut self, now: Time) {
        *self = Self::new(now);
    }
}

/// Sleeps at most this long at once: the runtime's timers stand still during suspend, the clock does not.
const NAP: Duration = Duration::from_secs(2);

/// Waits until a moment on the clock that runs during suspend.
pub(crate) async fn wait_until(deadline: Time) {
    loop {
        let left = deadline.since(clock::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP)).await;
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
    }

    #[test]
    fn the_relay_may_ask_for_patience_but_only_its_final_word_ends_a_session() {
        let closed = |code, reason: &str| SocketLost::Closed { code, reason: reason.into() };
        assert_eq!(asked_delay(&closed(close::RESTART, "retry-after=1500")), Some(Duration::from_millis(1500)));
        assert_eq!(asked_delay(&closed(close::RESTART, "bye")), None);
        for code in [1000, 1001, 1006, 1008, 1009, close::RESTART, close::TOO_MANY, 4999] {
            assert!(!is_final(&closed(code, "")), "{code}");
        }
        assert!(is_final(&closed(close::REPLACED, "")) && is_final(&closed(close::NO_SESSION, "")));
        assert!(!is_final(&SocketLost::Broken("reset".into())));
    }
}
