//! How many sessions each owner has.

use std::collections::HashMap;

use super::limits::Limits;
use crate::owner::{Counted, Owner};

#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<Counted, Owned>);

#[derive(Clone, Copy, Debug, Default)]
struct Owned {
    waiting: usize,
    all: usize,
}

impl Owners {
    /// Whether an owner may have one session more. `waiting`: whether that waits to be paired.
    pub(super) fn has_room(&self, owner: Owner, waiting: bool, limits: &Limits) -> bool {
        let waiting_max = if waiting { limits.waiting_per_address } else { usize::MAX };
        owner.counted().all(|(counted, times)| {
            let has = self.0.get(&counted).copied().unwrap_or_default();
            has.all < limits.sessions_per_address.saturating_mul(times)
                && has.waiting < waiting_max.saturating_mul(times)
        })
    }

    /// Counts one session more.
    pub(super) fn add(&mut self, owner: Owner, waiting: bool) {
        for (counted, _) in owner.counted() {
            let has = self.0.entry(counted).or_default();
            has.all += 1;
            has.waiting += usize::from(waiting);
        }
    }

    /// One of the owner's sessions waits no longer.
    pub(super) fn stop_waiting(&mut self, owner: Owner) {
        for (counted, _) in owner.counted() {
            if let Some(has) = self.0.get_mut(&counted) {
                has.waiting -= 1;
            }
        }
    }

    /// Counts one session less, which did not wait.
    pub(super) fn remove(&mut self, owner: Owner) {
        for (counted, _) in owner.counted() {
            if let Some(has) = self.0.get_mut(&counted) {
                has.all -= 1;
                if has.all == 0 {
                    self.0.remove(&counted);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each count: whose it is, all sessions, and the waiting ones.
    #[cfg(test)]
    pub(super) fn counts(&self) -> impl Iterator<Item = (Counted, usize, usize)> {
        self.0.iter().map(|(counted, has)| (*counted, has.all, has.waiting))
    }
}
