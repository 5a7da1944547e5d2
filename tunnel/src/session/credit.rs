//! Credit: what the peer may send, and when it is told that it may send more.

use std::time::Duration;

use mykube_protocol::channel::{Control, StreamId};

use crate::{
    flow::{GrowthPool, Overflow, RecvWindow, SessionWindow},
    message::CREDIT_LEN,
    time::Time,
};

/// The windows that all streams share, and the credit of which the peer has not been told yet.
#[derive(Debug)]
pub(super) struct CreditPolicy {
    session: SessionWindow,
    growth: GrowthPool,
    /// The peer is told with the next record, and after `due` in one of its own.
    untold: Vec<(StreamId, u64)>,
    due: Option<Time>,
}

impl CreditPolicy {
    /// `growth`: bytes by which the windows of all streams together may grow.
    pub(super) fn new(growth: u64) -> Self {
        Self { session: SessionWindow::new(), growth: GrowthPool::new(growth), untold: Vec::new(), due: None }
    }

    /// Payload of any stream came.
    pub(super) fn receive(&mut self, bytes: u64) -> Result<(), Overflow> {
        self.session.receive(bytes)
    }

    /// Payload has left this end's memory. Gives the session's credit, once it is worth a message.
    pub(super) fn consume(&mut self, bytes: u64) -> Option<u64> {
        self.session.consume(bytes)
    }

    /// Payload has left a stream's window. Gives the stream's credit, once it is worth a message, and whether the window has
    /// grown. Without `rtt` the window does not grow.
    pub(super) fn consume_of(
        &mut self,
        now: Time,
        window: &mut RecvWindow,
        bytes: u64,
        rtt: Option<Duration>,
    ) -> Option<(u64, bool)> {
        window.consume(now, bytes, rtt, &mut self.growth)
    }

    /// A stream is over, and its window.
    pub(super) fn retire(&mut self, window: &mut RecvWindow) {
        window.retire(&mut self.growth);
    }

    /// The peer is to be told of `n` more bytes, for a stream or (0) the session, at `due` at the latest.
    pub(super) fn tell(&mut self, id: StreamId, n: u64, due: Time) {
        match self.untold.iter_mut().find(|(other, _)| *other == id) {
            Some((_, waits)) => *waits += n,
            None => self.untold.push((id, n)),
        }
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// All credit that waits, to be told now.
    pub(super) fn take(&mut self) -> Option<impl Iterator<Item = Control>> {
        self.due.take()?;
        Some(self.untold.drain(..).map(|(id, n)| Control::Credit { id, n }))
    }

    /// Bytes of the messages that wait.
    pub(super) fn waiting(&self) -> usize {
        self.untold.len() * CREDIT_LEN
    }

    /// What the peer may still send on all streams, told to it or not.
    pub(super) fn outstanding(&self) -> u64 {
        self.session.outstanding()
    }

    pub(super) fn growth_left(&self) -> u64 {
        self.growth.left()
    }
}

#[cfg(test)]
mod tests {
    use mykube_protocol::limits::{SESSION_CREDIT_STEP, SESSION_WINDOW};

    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    #[test]
    fn credit_of_one_stream_is_one_message_and_leaves_with_the_others() {
        let mut credit = CreditPolicy::new(0);
        assert!(credit.take().is_none());
        credit.tell(1, 10, at(30));
        credit.tell(3, 5, at(20));
        credit.tell(1, 7, at(40));
        assert_eq!((credit.due(), credit.waiting()), (Some(at(20)), 2 * CREDIT_LEN));
        assert!(!credit.is_due(at(19)) && credit.is_due(at(20)));
        let told: Vec<_> = credit.take().unwrap().collect();
        assert_eq!(told, [Control::Credit { id: 1, n: 17 }, Control::Credit { id: 3, n: 5 }]);
        assert_eq!((credit.due(), credit.waiting(), credit.take().is_none()), (None, 0, true));
    }

    #[test]
    fn the_sessions_credit_waits_for_a_step_and_is_counted_before_it_is_told() {
        let mut credit = CreditPolicy::new(0);
        credit.receive(SESSION_CREDIT_STEP).unwrap();
        assert_eq!(credit.outstanding(), SESSION_WINDOW - SESSION_CREDIT_STEP);
        assert_eq!(credit.consume(SESSION_CREDIT_STEP - 1), None);
        assert_eq!(credit.outstanding(), SESSION_WINDOW - 1);
        assert_eq!(credit.consume(1), Some(SESSION_CREDIT_STEP));
        assert_eq!(credit.receive(SESSION_WINDOW + 1), Err(Overflow));
    }

    #[test]
    fn windows_grow_out_of_one_pool_and_give_it_back() {
        let mut credit = CreditPolicy::new(1000);
        let (mut one, mut other) = (RecvWindow::new(1000, 8000), RecvWindow::new(1000, 8000));
        let rtt = Some(Duration::from_millis(10));
        for window in [&mut one, &mut other] {
            window.receive(at(0), 1000).unwrap();
        }
        assert_eq!(credit.consume_of(at(1), &mut one, 1000, None), Some((1000, false)), "no quick reader");
        one.receive(at(1), 1000).unwrap();
        assert_eq!(credit.consume_of(at(2), &mut one, 1000, rtt), Some((2000, true)));
        assert_eq!(credit.consume_of(at(2), &mut other, 1000, rtt), Some((1000, false)), "the pool is dry");
        assert_eq!(credit.growth_left(), 0);
        credit.retire(&mut one);
        credit.retire(&mut other);
        assert_eq!(credit.growth_left(), 1000);
    }
}
