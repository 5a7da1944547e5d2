//! When bulk pauses so that a ping finds the line empty.
//!
//! Bulk keeps a short queue on the line at all times, and a round trip that waits in it is no minimum.

use std::time::Duration;

use crate::time::Time;

/// When no round trip near the minimum was seen for this long, bulk pauses until the queue is gone and a ping has left on the
/// empty line.
const MIN_RTT_AGE: Duration = Duration::from_secs(8);
/// Where bulk goes both ways, both queues must be gone at the same time: an end whose own minimum is this old pauses when
/// it hears the other's ping, and both wait for up to two answers.
const MIN_RTT_AGE_FOLLOW: Duration = Duration::from_secs(6);
/// A pause that has not emptied the line by then, or four round trips, is given up.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How old the minimum is, and the pause that measures it again.
#[derive(Debug)]
pub(super) struct Probe {
    min_rtt_seen: Time,
    pause: Option<Pause>,
}

/// Bulk waits for the line to be empty.
#[derive(Debug, Clone, Copy)]
struct Pause {
    since: Time,
    /// Pings that left, and whether the newest is still to be answered.
    pings: u32,
    waits: bool,
}

impl Probe {
    pub(super) fn new(now: Time) -> Self {
        Self { min_rtt_seen: now, pause: None }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// A ping was answered; `is_near_min`: about as quickly as any.
    pub(super) fn handle_rtt(&mut self, now: Time, is_near_min: bool) {
        if is_near_min {
            self.min_rtt_seen = now;
        }
        if let Some(pause) = &mut self.pause {
            pause.waits = false;
            if pause.pings >= 2 || (pause.pings == 1 && self.min_rtt_seen == now) {
                self.resume(now);
            }
        }
    }

    /// The peer measures, and this end has bulk under way.
    pub(super) fn handle_peer_ping(&mut self, now: Time) {
        self.pause_if_older(now, MIN_RTT_AGE_FOLLOW);
    }

    /// An acknowledgement came: begins a pause that is due, and ends one that takes too long.
    pub(super) fn handle_acked(&mut self, now: Time, min_rtt: Option<Duration>) {
        self.pause_if_older(now, MIN_RTT_AGE);
        let most = PAUSE_MAX.max(min_rtt.unwrap_or_default() * 4);
        if self.pause.is_some_and(|pause| now.since(pause.since) >= most) {
            self.resume(now);
        }
    }

    fn pause_if_older(&mut self, now: Time, age: Duration) {
        if self.pause.is_none() && now.since(self.min_rtt_seen) >= age {
            self.pause = Some(Pause { since: now, pings: 0, waits: false });
        }
    }

    fn resume(&mut self, now: Time) {
        self.pause = None;
        self.min_rtt_seen = now;
    }

    /// Whether a ping is to leave as soon as the line is empty.
    pub(super) fn wants_ping(&self) -> bool {
        self.pause.is_some_and(|pause| !pause.waits)
    }

    /// The ping on the empty line leaves. Bulk goes on after it, or after its answer where the peer sends bulk as well.
    pub(super) fn handle_ping_sent(&mut self, now: Time, peer_sends_bulk: bool) {
        match &mut self.pause {
            Some(pause) if peer_sends_bulk || pause.pings > 0 => {
                pause.pings += 1;
                pause.waits = true;
            }
            _ => self.resume(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    #[test]
    fn bulk_pauses_when_the_minimum_is_old_until_a_ping_has_left() {
        let mut probe = Probe::new(at(0));
        for start in [0, 8010] {
            probe.handle_acked(at(start + 7999), None);
            assert!(!probe.is_paused() && !probe.wants_ping());
            probe.handle_acked(at(start + 8000), None);
            assert!(probe.is_paused() && probe.wants_ping());
            probe.handle_ping_sent(at(start + 8010), false);
            assert!(!probe.is_paused() && !probe.wants_ping());
        }
    }

    #[test]
    fn a_round_trip_near_the_minimum_puts_the_pause_off() {
        let mut probe = Probe::new(at(0));
        probe.handle_rtt(at(5000), true);
        probe.handle_rtt(at(7000), false);
        probe.handle_acked(at(12_999), None);
        assert!(!probe.is_paused());
        probe.handle_acked(at(13_000), None);
        assert!(probe.is_paused());
    }

    #[test]
    fn where_the_peer_sends_bulk_too_one_short_round_trip_ends_the_pause_or_two_others() {
        let mut probe = Probe::new(at(0));
        probe.handle_acked(at(8000), None);
        probe.handle_rtt(at(8001), true);
        assert!(probe.is_paused() && probe.wants_ping(), "that ping did not leave on the empty line");
        probe.handle_ping_sent(at(8002), true);
        assert!(probe.is_paused() && !probe.wants_ping());
        probe.handle_rtt(at(8100), true);
        assert!(!probe.is_paused());
        probe.handle_acked(at(16_100), None);
        probe.handle_ping_sent(at(16_100), true);
        probe.handle_rtt(at(16_200), false);
        assert!(probe.is_paused() && probe.wants_ping());
        probe.handle_ping_sent(at(16_200), false);
        assert!(probe.is_paused() && !probe.wants_ping(), "the second is waited for");
        probe.handle_rtt(at(16_300), false);
        assert!(!probe.is_paused());
        probe.handle_acked(at(24_299), None);
        assert!(!probe.is_paused(), "the minimum counts as new");
    }

    #[test]
    fn the_peers_pause_is_joined_earlier() {
        let mut probe = Probe::new(at(0));
        probe.handle_peer_ping(at(5999));
        assert!(!probe.is_paused());
        probe.handle_peer_ping(at(6000));
        assert!(probe.is_paused());
    }

    #[test]
    fn a_pause_is_given_up_after_a_second_or_four_round_trips() {
        for (rtt, most) in [(None, 1000), (Some(Duration::from_millis(500)), 2000)] {
            let mut probe = Probe::new(at(0));
            probe.handle_acked(at(8000), rtt);
            probe.handle_acked(at(8000 + most - 1), rtt);
            assert!(probe.is_paused());
            probe.handle_acked(at(8000 + most), rtt);
            assert!(!probe.is_paused());
        }
    }
}
