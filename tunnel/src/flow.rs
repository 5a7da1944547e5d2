//! Receive windows: how much the peer may send, and when it is told of more. docs/protocol.md, "Flow control".

use std::time::Duration;

use mykube_protocol::limits::{SESSION_CREDIT_STEP, SESSION_WINDOW};

use crate::time::Time;

/// Round trips shorter than this are more waiting for a processor than for a line: a window that drains in two of them
/// may still be what its sender waits for.
const RTT_MIN: Duration = Duration::from_millis(2);

/// Growth that all streams of a session share: see [`mykube_protocol::limits::GROWTH_MAX`].
#[derive(Debug)]
pub(crate) struct GrowthPool {
    left: u64,
}

impl GrowthPool {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { left: bytes }
    }

    fn take(&mut self, bytes: u64) -> bool {
        let enough = bytes <= self.left;
        if enough {
            self.left -= bytes;
        }
        enough
    }

    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    fn give_back(&mut self, bytes: u64) {
        self.left += bytes;
    }
}

/// The session's window.
#[derive(Debug)]
pub(crate) struct SessionWindow {
    /// What the peer may still send.
    allowance: u64,
    /// Bytes that were consumed and of which the peer is not told yet. Less than a step, which the streams' windows leave free.
    owed: u64,
}

impl SessionWindow {
    pub(crate) fn new() -> Self {
        Self { allowance: SESSION_WINDOW, owed: 0 }
    }

    /// Bytes arrived.
    pub(crate) fn receive(&mut self, bytes: u64) -> Result<(), Overflow> {
        self.allowance = self.allowance.checked_sub(bytes).ok_or(Overflow)?;
        Ok(())
    }

    /// Bytes left this end's memory. Gives the credit to send, once it is a step.
    pub(crate) fn consume(&mut self, bytes: u64) -> Option<u64> {
        self.owed += bytes;
        if self.owed < SESSION_CREDIT_STEP {
            return None;
        }
        self.allowance += self.owed;
        Some(std::mem::take(&mut self.owed))
    }

    /// What the peer may send, told to it or not: the whole window when nothing is unread.
    pub(crate) fn outstanding(&self) -> u64 {
        self.allowance + self.owed
    }
}

/// A stream's window.
#[derive(Debug)]
pub(crate) struct RecvWindow {
    first: u64,
    size: u64,
    max: u64,
    /// What the peer may still send.
    allowance: u64,
    /// Consumed, and not yet told to the peer.
    owed: u64,
    /// Consumed since `epoch`.
    drained: u64,
    epoch: Option<Time>,
}

/// The peer sent more than it was allowed to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl RecvWindow {
    pub(crate) fn new(first: u64, max: u64) -> Self {
        Self { first, size: first, max, allowance: first, owed: 0, drained: 0, epoch: None }
    }

    /// Bytes arrived.
    pub(crate) fn receive(&mut self, now: Time, bytes: u64) -> Result<(), Overflow> {
        self.allowance = self.allowance.checked_sub(bytes).ok_or(Overflow)?;
        self.epoch.get_or_insert(now);
        Ok(())
    }

    /// The application took bytes. Gives the credit to send, once it is worth a message, and whether the window has grown. One that
    /// drains in two round trips doubles, as far as the pool has room; each quarter of it shows that.
    pub(crate) fn consume(
        &mut self,
        now: Time,
        bytes: u64,
        rtt: Option<Duration>,
        pool: &mut GrowthPool,
    ) -> Option<(u64, bool)> {
        self.owed += bytes;
        self.drained += bytes;
        if self.owed * 4 < self.size {
            return None;
        }
        let grows = self.drains_quickly(now, rtt) && self.size * 2 <= self.max && pool.take(self.size);
        if grows || self.drained >= self.size {
            self.drained = 0;
            self.epoch = Some(now);
        }
        if grows {
            self.owed += self.size;
            self.size *= 2;
        }
        self.allowance += self.owed;
        Some((std::mem::take(&mut self.owed), grows))
    }

    fn drains_quickly(&self, now: Time, rtt: Option<Duration>) -> bool {
        rtt.zip(self.epoch).is_some_and(|(rtt, epoch)| {
            let two = rtt.max(RTT_MIN).as_micros() * 2;
            now.since(epoch).as_micros() * u128::from(self.size) <= two * u128::from(self.drained)
        })
    }

    /// The window is over: its growth goes back to the pool.
    pub(crate) fn retire(&mut self, pool: &mut GrowthPool) {
        pool.give_back(self.size - self.first);
        self.size = self.first;
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Option<Duration> = Some(Duration::from_millis(10));

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    #[test]
    fn the_sessions_credit_comes_by_the_step_and_is_exact() {
        let mut window = SessionWindow::new();
        window.receive(SESSION_WINDOW).unwrap();
        assert_eq!(window.receive(1), Err(Overflow));
        assert_eq!(window.consume(SESSION_CREDIT_STEP - 1), None);
        assert_eq!((window.receive(1), window.outstanding()), (Err(Overflow), SESSION_CREDIT_STEP - 1));
        assert_eq!(window.consume(2), Some(SESSION_CREDIT_STEP + 1));
        assert_eq!(
            (window.receive(SESSION_CREDIT_STEP + 2), window.receive(SESSION_CREDIT_STEP + 1)),
            (Err(Overflow), Ok(()))
        );
    }

    #[test]
    fn credit_comes_by_the_quarter() {
        let (mut window, mut pool) = (RecvWindow::new(1000, 1000), GrowthPool::new(0));
        window.receive(at(0), 500).unwrap();
        assert_eq!(window.consume(at(0), 200, RTT, &mut pool), None);
        assert_eq!(window.consume(at(0), 100, RTT, &mut pool), Some((300, false)));
        assert_eq!(window.receive(at(0), 801), Err(Overflow));
        assert_eq!(window.receive(at(0), 800), Ok(()));
    }

    #[test]
    fn a_quick_reader_doubles_its_window_until_the_pool_is_dry() {
        let (mut window, mut pool) = (RecvWindow::new(1000, 8000), GrowthPool::new(3000));
        for (expected, t) in [(2000, 1), (4000, 2), (4000, 3)] {
            let size = window.size();
            window.receive(at(t), size).unwrap();
            window.consume(at(t), size, RTT, &mut pool);
            assert_eq!(window.size(), expected);
        }
        window.retire(&mut pool);
        assert!(pool.take(3000));
    }

    #[test]
    fn a_quarter_that_drains_quickly_is_enough_and_a_slow_one_is_made_up_for() {
        let (mut window, mut pool) = (RecvWindow::new(1000, 8000), GrowthPool::new(9000));
        window.receive(at(0), 1000).unwrap();
        assert_eq!(window.consume(at(5), 250, RTT, &mut pool), Some((1250, true)));
        assert_eq!(window.consume(at(11), 500, RTT, &mut pool), Some((500, false)));
        assert_eq!(window.consume(at(14), 500, RTT, &mut pool), Some((2500, true)));
        assert_eq!(window.size(), 4000);
    }

    #[test]
    fn a_round_trip_too_short_to_matter_does_not_keep_a_window_small() {
        let (mut window, mut pool) = (RecvWindow::new(1000, 8000), GrowthPool::new(9000));
        window.receive(at(0), 1000).unwrap();
        window.consume(at(4), 1000, Some(Duration::from_micros(100)), &mut pool);
        assert_eq!(window.size(), 2000);
    }

    #[test]
    fn a_slow_reader_keeps_its_window() {
        let (mut window, mut pool) = (RecvWindow::new(1000, 8000), GrowthPool::new(9000));
        window.receive(at(0), 1000).unwrap();
        window.consume(at(21), 1000, RTT, &mut pool);
        assert_eq!(window.size(), 1000);
    }

    #[test]
    fn a_window_that_was_drained_once_is_measured_anew() {
        let (mut window, mut pool) = (RecvWindow::new(1000, 8000), GrowthPool::new(9000));
        window.receive(at(0), 1000).unwrap();
        assert_eq!(window.consume(at(21), 1000, RTT, &mut pool), Some((1000, false)));
        window.receive(at(21), 1000).unwrap();
        assert_eq!(window.consume(at(41), 1000, RTT, &mut pool), Some((2000, true)));
    }

    #[test]
    fn a_window_never_grows_beyond_its_largest() {
        let (mut window, mut pool) = (RecvWindow::new(1000, 1999), GrowthPool::new(9000));
        window.receive(at(0), 1000).unwrap();
        assert_eq!(window.consume(at(0), 1000, RTT, &mut pool), Some((1000, false)));
    }
}
