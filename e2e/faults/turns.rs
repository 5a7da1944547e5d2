//! Limits how many jobs load the machine at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// This many jobs at once, not counting those that wait for something.
pub(super) struct Turns {
    most: usize,
    busy: Mutex<usize>,
    changed: Condvar,
}

/// One job's turn; dropping it ends the turn.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(super) fn new(most: usize) -> Self {
        Self { most, busy: Mutex::new(0), changed: Condvar::new() }
    }

    /// Waits until fewer than that have a turn.
    pub(super) fn begin(&self) -> Turn<'_> {
        let busy = self.lock();
        let full = |busy: &mut usize| *busy >= self.most;
        *self.changed.wait_while(busy, full).unwrap_or_else(PoisonError::into_inner) += 1;
        Turn(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        *self.lock() -= 1;
        self.changed.notify_all();
    }
}

impl Turn<'_> {
    /// Does work that hardly loads the machine: another job may have the turn meanwhile. Afterwards this job does not
    /// wait for a turn, as that would make the fault last longer.
    pub(super) fn pause<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Also if the work panics.
        struct Resume<'a>(&'a Turns);
        impl Drop for Resume<'_> {
            fn drop(&mut self) {
                *self.0.lock() += 1;
            }
        }
        self.0.end();
        let _resume = Resume(self.0);
        work()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_job_that_waits_makes_room_and_comes_back_without_asking() {
        let turns = Turns::new(1);
        let busy = || *turns.lock();
        let first = turns.begin();
        assert_eq!(busy(), 1);
        let second = first.pause(|| {
            assert_eq!(busy(), 0, "another may begin");
            turns.begin()
        });
        assert_eq!(busy(), 2, "the first is back though the second is there");
        drop((first, second));
        assert_eq!(busy(), 0);
    }

    #[test]
    fn others_wait() {
        let turns = Turns::new(2);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let _turn = turns.begin();
                        assert!(*turns.lock() <= 2);
                    }
                });
            }
        });
    }
}
