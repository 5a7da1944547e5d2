//! Round trips, which each end measures by pings of its own.

use std::time::Duration;

use bytes::BytesMut;
use mykube_protocol::{channel::Upkeep, limits::IDLE_PING};

use crate::{congestion::Congestion, message, time::Time};

/// While something is under way, the round trip is measured this often.
const INTERVAL: Duration = Duration::from_secs(1);
/// A transport's first ping is answered beside an attach, a welcome or TCP's own beginning, so others follow it.
const FIRST: u32 = 4;
/// A peer that has sent this much payload since this end's line was measured empty sends bulk.
const BULK_HEARD: u64 = 256 * 1024;

/// This end's pings, and the answers to the peer's.
#[derive(Debug)]
pub(super) struct Pings {
    /// The newest, which is the one that counts, and when it was asked for; until it is answered.
    under_way: Option<(u64, Time)>,
    /// The newest ping, while it has not left.
    unsent: Option<u64>,
    due: Option<Time>,
    count: u64,
    /// How many more pings measure a new transport, one after another, while each finds it quicker than the last.
    first: u32,
    /// The peer's newest, while it is not answered.
    pong: Option<u64>,
    /// Payload that came since this end's line was last measured empty.
    heard: u64,
}

impl Pings {
    pub(super) fn new(now: Time) -> Self {
        Self { under_way: None, unsent: None, due: Some(now), count: 0, first: FIRST, pong: None, heard: 0 }
    }

    /// A ping leaves with the next record.
    pub(super) fn send(&mut self, now: Time) {
        self.due = None;
        self.count += 1;
        self.under_way = Some((self.count, now));
        self.unsent = Some(self.count);
    }

    /// When the next one is to be sent.
    pub(super) fn due(&self) -> Option<Time> {
        self.due.filter(|_| self.under_way.is_none())
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Whether the peer owes an answer.
    pub(super) fn is_owed(&self) -> bool {
        self.under_way.is_some()
    }

    /// The peer asks. Only its newest ping is answered: a flood of them costs its sender more than this end.
    pub(super) fn handle_ping(&mut self, n: u64) {
        self.pong = Some(n);
    }

    /// The peer has answered: the round trip is told to `path`.
    pub(super) fn handle_pong(&mut self, now: Time, n: u64, path: &mut Congestion) {
        let Some((_, sent)) = self.under_way.take_if(|(expected, _)| *expected == n) else { return };
        let (before, rtt) = (path.best_rtt(), now.since(sent).max(Duration::from_micros(1)));
        path.handle_rtt(now, rtt);
        let settles = before.is_none_or(|best| rtt + best / 8 < best);
        self.first = if settles { self.first.saturating_sub(1) } else { 0 };
        if self.first > 0 {
            self.due = Some(now);
        } else {
            self.due.get_or_insert(now + IDLE_PING);
        }
    }

    /// Payload travels: the round trip is worth measuring again.
    pub(super) fn measure_soon(&mut self, now: Time) {
        let soon = now + INTERVAL;
        if self.under_way.is_none() {
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// Payload came.
    pub(super) fn handle_data(&mut self, now: Time, bytes: u64) {
        self.heard += bytes;
        self.measure_soon(now);
    }

    /// Whether the peer has sent bulk since this end's line was last measured empty.
    pub(super) fn peer_sends_bulk(&self) -> bool {
        self.heard >= BULK_HEARD
    }

    /// A ping leaves on a line that bulk has let run dry.
    pub(super) fn probe(&mut self, now: Time) {
        self.heard = 0;
        self.send(now);
    }

    /// Whether a ping or a pong waits to be sent.
    pub(super) fn has_something(&self) -> bool {
        self.pong.is_some() || self.unsent.is_some()
    }

    /// Puts what waits into a record.
    pub(super) fn put(&mut self, frame: &mut BytesMut) {
        if let Some(n) = self.pong.take() {
            message::put_upkeep(frame, Upkeep::Pong(n));
        }
        if let Some(n) = self.unsent.take() {
            message::put_upkeep(frame, Upkeep::Ping(n));
        }
    }

    /// The transport is gone, with what was asked on it.
    pub(super) fn handle_transport_lost(&mut self) {
        (self.under_way, self.unsent, self.pong) = (None, None, None);
    }

    /// Another transport stands, of which nothing is known.
    pub(super) fn handle_attached(&mut self, now: Time) {
        self.due = Some(now);
        self.first = FIRST;
        self.heard = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    fn said(pings: &mut Pings) -> Vec<u8> {
        let mut frame = BytesMut::new();
        pings.put(&mut frame);
        frame.to_vec()
    }

    #[test]
    fn a_new_transport_is_measured_until_it_gets_no_quicker() {
        let (mut pings, mut path, mut now) = (Pings::new(at(0)), Congestion::new(at(0)), at(0));
        let mut asked = 0;
        for rtt in [100, 50, 49, 1] {
            if !pings.is_due(now) {
                break;
            }
            pings.send(now);
            asked += 1;
            assert!(pings.is_owed() && pings.due().is_none());
            now = now + Duration::from_millis(rtt);
            pings.handle_pong(now, asked, &mut path);
        }
        assert_eq!((asked, path.best_rtt()), (3, Some(Duration::from_millis(49))));
        assert_eq!(pings.due(), Some(now + IDLE_PING));
        pings.measure_soon(now);
        assert_eq!(pings.due(), Some(now + INTERVAL));
        pings.measure_soon(now + INTERVAL);
        assert_eq!(pings.due(), Some(now + INTERVAL), "not put off");
        pings.handle_attached(now);
        assert!(pings.is_due(now));
    }

    #[test]
    fn the_newest_ping_counts_and_the_newest_is_answered() {
        let (mut pings, mut path) = (Pings::new(at(0)), Congestion::new(at(0)));
        pings.send(at(0));
        pings.send(at(10));
        pings.handle_pong(at(20), 1, &mut path);
        assert_eq!(path.best_rtt(), None);
        (7..=9).for_each(|n| pings.handle_ping(n));
        let mut expected = BytesMut::new();
        message::put_upkeep(&mut expected, Upkeep::Pong(9));
        message::put_upkeep(&mut expected, Upkeep::Ping(2));
        assert!(pings.has_something());
        assert_eq!(said(&mut pings), expected);
        assert!(!pings.has_something() && said(&mut pings).is_empty());
        pings.handle_pong(at(30), 2, &mut path);
        assert_eq!(path.best_rtt(), Some(Duration::from_millis(20)));
        pings.send(at(30));
        pings.handle_ping(10);
        pings.handle_transport_lost();
        assert!(!pings.has_something() && !pings.is_owed());
    }

    #[test]
    fn a_peer_sends_bulk_that_has_sent_much_since_the_line_was_empty() {
        let mut pings = Pings::new(at(0));
        pings.handle_data(at(0), BULK_HEARD - 1);
        assert!(!pings.peer_sends_bulk());
        pings.handle_data(at(0), 1);
        assert!(pings.peer_sends_bulk());
        pings.probe(at(0));
        assert!(!pings.peer_sends_bulk() && pings.is_owed());
    }
}
