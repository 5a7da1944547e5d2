//! A sliding window: never more than so many in any such time, wherever it begins.
//!
//! Each admitted call is remembered until it is out of the window. A rate with a burst would need less memory, and admit
//! nearly twice the figure in some windows, as windows that stand still do.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// Calls remembered at once in one window: bounds what a flood from many networks can make the relay keep, 8 MiB for each
/// window and, with one to three of them for each call, 182 MiB for all. The oldest are forgotten for new ones, so that a
/// flood locks nobody out; some limits of that one call end early meanwhile.
pub(super) const CALLS_MAX: usize = 32_768;
/// What one full window takes at most.
#[cfg(test)]
pub(super) const MIB_MAX: usize = 8;
/// Calls that are out of the window, forgotten with each new one: more than come in.
const FORGOTTEN_AT_ONCE: usize = 8;

#[derive(Debug)]
pub(super) struct SlidingWindow<K> {
    length: Duration,
    calls: HashMap<K, VecDeque<Instant>>,
    /// All of them, the oldest first.
    order: VecDeque<(Instant, K)>,
}

impl<K: Copy + Eq + Hash> SlidingWindow<K> {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, calls: HashMap::new(), order: VecDeque::new() }
    }

    /// How long until this one may call again, if it has called `limit` times.
    pub(super) fn wait(&self, now: Instant, key: &K, limit: usize) -> Option<Duration> {
        let calls = self.calls.get(key)?;
        let first = calls.len().checked_sub(limit.max(1))?;
        let wait = (calls[first] + self.length).saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    pub(super) fn count(&mut self, now: Instant, key: K) {
        self.forget(now, FORGOTTEN_AT_ONCE);
        if self.order.len() >= CALLS_MAX {
            self.forget_oldest();
        }
        self.order.push_back((now, key));
        self.calls.entry(key).or_default().push_back(now);
    }

    /// Forgets up to so many calls that are out of the window.
    pub(super) fn forget(&mut self, now: Instant, at_once: usize) {
        for _ in 0..at_once {
            match self.order.front() {
                Some((at, _)) if now.saturating_duration_since(*at) >= self.length => self.forget_oldest(),
                _ => break,
            }
        }
        if self.order.is_empty() {
            // Gives back what a flood took.
            (self.calls, self.order) = (HashMap::new(), VecDeque::new());
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        if let Some(calls) = self.calls.get_mut(&key) {
            calls.pop_front();
            if calls.is_empty() {
                self.calls.remove(&key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.order.len(), self.calls.values().map(VecDeque::len).sum())
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[allow(clippy::disallowed_methods, reason = "there is no other way to an instant")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn in_no_minute_are_there_more_than_the_figure_and_who_waits_is_admitted() {
        let (mut window, start) = (SlidingWindow::new(MINUTE), start());
        let mut rng = StdRng::seed_from_u64(1);
        let (mut now, mut admitted): (_, Vec<Instant>) = (start, Vec::new());
        for _ in 0..20_000 {
            now += Duration::from_millis(rng.random_range(0..1500));
            match window.wait(now, &(), 30) {
                None => {
                    window.count(now, ());
                    admitted.push(now);
                }
                Some(wait) => {
                    assert!(window.wait(now + wait, &(), 30).is_none(), "in that time it is");
                    let just_before = now + wait.saturating_sub(Duration::from_nanos(1));
                    assert!(window.wait(just_before, &(), 30).is_some());
                }
            }
        }
        assert!(admitted.windows(31).all(|calls| calls[30] - calls[0] >= MINUTE));
        // As many as there may be: nobody is refused for longer than needed.
        let minutes = usize::try_from((now - start).as_secs() / 60).unwrap();
        assert!(admitted.len() > 28 * minutes, "{} in {minutes}", admitted.len());
        assert!(window.len().0 <= 31);
    }

    #[test]
    fn a_flood_is_bounded_and_locks_nobody_out() {
        let (mut window, start) = (SlidingWindow::new(MINUTE), start());
        for n in 0..3 * CALLS_MAX {
            assert_eq!(window.wait(start, &n, 5), None);
            window.count(start, n);
        }
        assert_eq!(window.len(), (CALLS_MAX, CALLS_MAX));
        for _ in 0..5 {
            assert_eq!(window.wait(start, &usize::MAX, 5), None);
            window.count(start, usize::MAX);
        }
        assert_eq!(window.wait(start, &usize::MAX, 5), Some(MINUTE), "and whoever comes has its limit");
        window.forget(start + MINUTE, usize::MAX);
        assert_eq!((window.len(), window.calls.capacity()), ((0, 0), 0));
    }
}
