//! How much bulk may be under way, and how soon after one another it leaves, so that nothing piles up below the scheduler
//! and a keystroke never waits behind megabytes (docs/protocol.md, "Fair, and quick").
//!
//! The cap (`cap`) is made of the shortest round trip (`rtt`), which bulk pauses to measure (`probe`), and the rate at which
//! acknowledgements come (`delivery`). Bulk begins by doubling it (`startup`), and on long paths leaves at a pace (`pacing`).

mod cap;
mod delivery;
mod filter;
mod pacing;
mod probe;
mod rtt;
mod startup;
mod units;

pub(crate) use delivery::{MESSAGE, Stamp};

use std::time::Duration;

use crate::time::Time;
use cap::{FLOOR, Line, SLACK_TIME};
use delivery::Delivery;
use pacing::{Pacer, Spread};
use probe::Probe;
use rtt::RoundTrip;
use startup::{Sample, Startup};
use units::bytes_in;

/// Which streams the line has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// None.
    None,
    /// Streams with little to say.
    Sparse,
    /// All.
    Bulk,
}

/// Bulk is alone when no stream with little to say has spoken for this long.
pub(crate) const ALONE: Duration = Duration::from_millis(250);
/// An acknowledgement that takes this much of the shortest round trip more than it may shows a queue on the line.
const QUEUE_SHARE: u32 = 8;
/// Bytes a stream may send in its turn, and ahead of the others in a round trip.
pub(crate) const QUANTUM: usize = 16 * 1024;
/// A turn may be as long as this, but has at least [`QUANTUM`] and at most this much.
const QUANTUM_TIME: Duration = Duration::from_micros(500);
const QUANTUM_MAX: usize = 256 * 1024;
/// What streams with little to say may have under way beyond bulk's cap, in caps.
const SPARSE_CAPS: u64 = 2;

/// The path's estimates of one direction.
#[derive(Debug)]
pub(crate) struct Congestion {
    rtt: RoundTrip,
    delivery: Delivery,
    startup: Startup,
    probe: Probe,
    pacer: Pacer,
    /// When a stream with little to say last spoke, and whether that is long enough ago.
    little_said: Time,
    alone: bool,
}

impl Congestion {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            rtt: RoundTrip::default(),
            delivery: Delivery::new(now),
            startup: Startup::new(),
            probe: Probe::new(now),
            pacer: Pacer::new(now),
            little_said: now,
            alone: false,
        }
    }

    /// A round trip was measured.
    pub(crate) fn handle_rtt(&mut self, now: Time, rtt: Duration) {
        let is_near_min = self.rtt.handle_rtt(now, rtt);
        self.probe.handle_rtt(now, is_near_min);
    }

    /// The peer measures, perhaps on a line it has let run dry.
    pub(crate) fn handle_peer_ping(&mut self, now: Time) {
        if self.delivery.in_flight() > FLOOR / 2 {
            self.probe.handle_peer_ping(now);
        }
    }

    /// A stream has said all it had to say, and that was little.
    pub(crate) fn handle_little_said(&mut self, now: Time) {
        self.little_said = now;
        self.alone = false;
    }

    /// Payload leaves. `limited_by_application`: there was no more to send.
    pub(crate) fn handle_sent(&mut self, now: Time, bytes: u64, limited_by_application: bool) -> Stamp {
        let stamp = self.delivery.handle_sent(now, bytes, limited_by_application);
        if let Some(rtt) = self.rtt.of_long_path() {
            let (cap, starting) = (self.line().cap_on_the_line(), !self.startup.is_over());
            self.pacer.handle_sent(now, bytes, &Spread { rtt, cap, starting, burst: SLACK_TIME });
        }
        stamp
    }

    /// Payload was acknowledged; called for every message, the newest last.
    pub(crate) fn handle_acked(&mut self, now: Time, bytes: u64, stamp: &Stamp) {
        self.delivery.handle_acked(now, bytes, stamp);
    }

    /// After the last [`Congestion::handle_acked`] of one acknowledgement.
    pub(crate) fn sample(&mut self, now: Time, newest: &Stamp) {
        let new_round = self.delivery.sample(now, newest);
        self.alone = now.since(self.little_said) >= ALONE;
        let (waited, min_rtt) = (now.since(newest.sent()), self.best_rtt());
        let queued = min_rtt.is_some_and(|rtt| waited > rtt + rtt / QUEUE_SHARE + self.ack_delay() + SLACK_TIME);
        self.startup.handle_sample(&Sample {
            rate: self.best_rate().unwrap_or(0),
            queued,
            new_round,
            limited_by_application: newest.is_limited_by_application(),
        });
        self.probe.handle_acked(now, min_rtt);
    }

    /// Whether the line is as empty as it gets, and a ping should leave alone.
    pub(crate) fn wants_probe(&self) -> bool {
        self.probe.wants_ping() && self.delivery.in_flight() <= self.line().product().map_or(0, |product| product / 2)
    }

    /// [`Congestion::wants_probe`]; bulk goes on after that ping, or after its answer where the peer sends bulk as well.
    pub(crate) fn take_probe(&mut self, now: Time, peer_sends_bulk: bool) -> bool {
        let probe = self.wants_probe();
        if probe {
            self.probe.handle_ping_sent(now, peer_sends_bulk);
        }
        probe
    }

    /// Which streams may send now.
    pub(crate) fn room(&self, now: Time) -> Room {
        let cap = self.cap();
        match self.delivery.in_flight() {
            _ if self.delivery.is_full() => Room::None,
            _ if self.has_room_for_bulk(cap) && self.pacer.until() <= now => Room::Bulk,
            under_way if under_way < cap.saturating_mul(SPARSE_CAPS) => Room::Sparse,
            _ => Room::None,
        }
    }

    fn has_room_for_bulk(&self, cap: u64) -> bool {
        self.delivery.in_flight() < cap && !self.probe.is_paused() && !self.delivery.is_full()
    }

    /// When bulk may go on, where only its pace holds it back.
    pub(crate) fn paced_until(&self) -> Option<Time> {
        Some(self.pacer.until()).filter(|_| self.has_room_for_bulk(self.cap()))
    }

    /// How much a stream may send in its turn: what each end does once for a turn is most of the work where many streams
    /// share a quick line.
    pub(crate) fn quantum(&self) -> usize {
        let quick = bytes_in(self.best_rate().unwrap_or(0), QUANTUM_TIME);
        usize::try_from(quick).unwrap_or(QUANTUM_MAX).clamp(QUANTUM, QUANTUM_MAX)
    }

    /// How much bulk may be under way.
    pub(crate) fn cap(&self) -> u64 {
        self.line().cap(self.ack_interval())
    }

    fn line(&self) -> Line {
        Line {
            min_rtt: self.best_rtt(),
            rate: self.best_rate(),
            settled: self.startup.is_over(),
            queued: self.startup.is_queued(),
            alone: self.alone,
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.delivery.in_flight()
    }

    /// In bytes a second.
    pub(crate) fn best_rate(&self) -> Option<u64> {
        self.delivery.rate()
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    pub(crate) fn best_rtt(&self) -> Option<Duration> {
        self.rtt.min()
    }

    /// Between two acknowledgements of what comes in at least this much time passes, on this end as on the other.
    pub(crate) fn ack_interval(&self) -> Duration {
        self.rtt.ack_interval()
    }

    /// What comes in is acknowledged after this much time at the latest.
    pub(crate) fn ack_delay(&self) -> Duration {
        self.rtt.ack_delay()
    }
}

/// What acknowledgements do is tested with sessions and their records: tests/tunnel/congestion.rs.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_longer_where_bytes_are_quick() {
        let quantum = |rate: u64| {
            let mut congestion = Congestion::new(Time::default());
            congestion.delivery.set_rate(rate);
            congestion.quantum()
        };
        assert_eq!([0, 30_000_000, 60_000_000, 800_000_000].map(quantum), [QUANTUM, QUANTUM, 30_000, QUANTUM_MAX]);
    }

    #[test]
    fn nothing_known_means_the_floor() {
        let now = Time::default();
        let mut congestion = Congestion::new(now);
        assert_eq!(congestion.room(now), Room::Bulk);
        congestion.handle_sent(now, FLOOR, false);
        assert_eq!(congestion.room(now), Room::Sparse);
        congestion.handle_sent(now, FLOOR, false);
        assert_eq!(congestion.room(now), Room::None);
    }

    #[test]
    fn a_short_path_is_not_paced() {
        let now = Time::from_micros(1_000_000);
        let mut congestion = Congestion::new(Time::default());
        congestion.handle_rtt(now, Duration::from_micros(200));
        congestion.delivery.set_rate(800_000_000);
        while congestion.room(now) == Room::Bulk {
            congestion.handle_sent(now, 16 * 1024, false);
        }
        assert!(congestion.in_flight() >= congestion.cap());
        assert_eq!(congestion.pacer.until(), Time::default(), "nor does it count against what follows");
    }

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    /// A path of 100 ms that gives 10 MB/s: a megabyte is under way.
    fn long() -> Congestion {
        let mut congestion = Congestion::new(at(0));
        congestion.handle_rtt(at(0), 100 * MS);
        congestion.delivery.set_rate(10_000_000);
        congestion
    }

    #[test]
    fn an_acknowledgement_that_takes_longer_than_the_path_shows_a_queue() {
        let queued = |waited: Duration| {
            let mut congestion = Congestion::new(at(0));
            congestion.handle_rtt(at(0), 8 * MS);
            let stamp = congestion.handle_sent(at(0), 1000, false);
            congestion.handle_acked(at(0) + waited, 1000, &stamp);
            congestion.sample(at(0) + waited, &stamp);
            assert_eq!(congestion.in_flight(), 0);
            congestion.startup.is_queued()
        };
        // The round trip, an eighth of it, the delay of an acknowledgement, the slack.
        assert_eq!([33 * MS, 33 * MS + Duration::from_micros(1)].map(queued), [false, true]);
    }

    #[test]
    fn only_an_application_that_has_more_to_say_shows_what_a_line_takes() {
        for limited_by_application in [false, true] {
            let (mut congestion, mut now) = (Congestion::new(at(0)), at(0));
            congestion.handle_rtt(now, 10 * MS);
            for _ in 0..10 {
                let stamp = congestion.handle_sent(now, 1000, limited_by_application);
                now = now + 10 * MS;
                congestion.handle_acked(now, 1000, &stamp);
                congestion.sample(now, &stamp);
            }
            assert_eq!(congestion.startup.is_over(), !limited_by_application);
        }
    }

    #[test]
    fn bulk_is_alone_a_while_after_the_last_little_word() {
        let mut congestion = Congestion::new(at(0));
        let stamp = congestion.handle_sent(at(0), 1, false);
        for start in [at(0), at(1000)] {
            congestion.handle_little_said(start);
            assert!(!congestion.alone);
            congestion.sample(start + 249 * MS, &stamp);
            assert!(!congestion.alone);
            congestion.sample(start + ALONE, &stamp);
            assert!(congestion.alone);
        }
    }

    #[test]
    fn who_has_bulk_under_way_joins_the_peers_pause() {
        let (mut congestion, now) = (Congestion::new(at(0)), at(6000));
        congestion.handle_sent(now, FLOOR / 2, false);
        congestion.handle_peer_ping(now);
        assert_eq!(congestion.room(now), Room::Bulk);
        congestion.handle_sent(now, 1, false);
        congestion.handle_peer_ping(now);
        assert_eq!(congestion.room(now), Room::Sparse);
    }

    #[test]
    fn a_paused_line_is_probed_when_half_of_it_is_empty() {
        let (mut congestion, now) = (long(), at(8000));
        let stamp = congestion.handle_sent(at(0), 500_001, false);
        assert!(!congestion.take_probe(now, false));
        congestion.probe.handle_acked(now, None);
        assert!(!congestion.wants_probe() && !congestion.take_probe(now, false));
        assert_eq!((congestion.room(now), congestion.paced_until()), (Room::Sparse, None));
        congestion.handle_acked(now, 1, &stamp);
        assert!(congestion.wants_probe() && congestion.take_probe(now, false));
        assert_eq!(congestion.room(now), Room::Bulk);
    }

    #[test]
    fn bulk_on_a_long_path_waits_for_its_pace() {
        let (mut congestion, now) = (long(), at(1000));
        let half = congestion.line().cap_on_the_line() / 2;
        congestion.handle_sent(now, half, false);
        let due = Time::from_micros(996_000 + 100_000 / 2 / 3);
        assert!(congestion.pacer.until().since(due) <= Duration::from_micros(1), "a third, as it starts");
        let until = congestion.paced_until().unwrap();
        assert_eq!(until, congestion.pacer.until());
        assert_eq!(congestion.room(until), Room::Bulk);
        assert_eq!(congestion.room(Time::from_micros(until.as_micros() - 1)), Room::Sparse);
        congestion.handle_sent(now, congestion.cap() - half, false);
        assert_eq!((congestion.room(at(5000)), congestion.paced_until()), (Room::Sparse, None));
    }

    #[test]
    fn many_small_messages_fill_the_line() {
        let (mut congestion, now) = (long(), at(0));
        for _ in 0..delivery::UNACKED_MAX / MESSAGE {
            congestion.delivery.handle_sent(now, 0, false);
        }
        assert_eq!((congestion.room(now), congestion.paced_until()), (Room::None, None));
    }
}
