//! What is under way, and how quickly it is delivered.
//!
//! The rate is sampled as in draft-cheng-iccrg-delivery-rate-estimation: per acknowledgement, what was delivered since the
//! acknowledged message left, over the longer of the time it took to send and to acknowledge.

use mykube_protocol::limits::SESSION_WINDOW;

use super::filter::Windowed;
use crate::time::Time;

/// Never more than this is under way, whatever credit the peer gives: it bounds what is kept for a peer that acknowledges
/// nothing. A message counts with what it takes beside its payload (its place in a queue, an allocation), or of the smallest
/// ones a hundred times as much would be kept.
pub(super) const UNACKED_MAX: u64 = SESSION_WINDOW;
pub(crate) const MESSAGE: u64 = 128;
/// A rate is forgotten after five to ten round trips.
const RATE_HALF_ROUNDS: u64 = 5;

/// What is known of the path when a message leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    sent: Time,
    delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    limited_by_application: bool,
}

impl Stamp {
    pub(super) fn sent(&self) -> Time {
        self.sent
    }

    /// No more was waiting when the message left: the rate it shows may be the application's.
    pub(super) fn is_limited_by_application(&self) -> bool {
        self.limited_by_application
    }
}

/// Payload on its way, and the rate at which it arrives.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Bytes a second.
    rate: Windowed<u64>,
    delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    in_flight: u64,
    /// Messages of `in_flight`.
    messages: u64,
    round: u64,
    round_ends: u64,
}

impl Delivery {
    pub(super) fn new(now: Time) -> Self {
        Self {
            rate: Windowed::default(),
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            in_flight: 0,
            messages: 0,
            round: 0,
            round_ends: 0,
        }
    }

    pub(super) fn handle_sent(&mut self, now: Time, bytes: u64, limited_by_application: bool) -> Stamp {
        if self.in_flight == 0 {
            self.delivered_at = now;
            self.first_sent = now;
        }
        self.in_flight += bytes;
        self.messages += 1;
        Stamp {
            sent: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            limited_by_application,
        }
    }

    /// For every message that is acknowledged, the newest last.
    pub(super) fn handle_acked(&mut self, now: Time, bytes: u64, stamp: &Stamp) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.messages = self.messages.saturating_sub(1);
        self.delivered += bytes;
        self.delivered_at = now;
        self.first_sent = stamp.sent;
    }

    /// After the last [`Delivery::handle_acked`] of one acknowledgement. Gives whether a round trip has ended with it.
    pub(super) fn sample(&mut self, now: Time, newest: &Stamp) -> bool {
        let took = now.since(newest.delivered_at).max(newest.sent.since(newest.first_sent));
        let bytes = self.delivered - newest.delivered;
        let rate = u64::try_from(u128::from(bytes) * 1_000_000 / took.as_micros().max(1)).unwrap_or(u64::MAX);
        let new_round = newest.delivered >= self.round_ends;
        if new_round {
            self.round += 1;
            self.round_ends = self.delivered;
        }
        if !newest.limited_by_application || self.rate().is_none_or(|best| rate >= best) {
            self.rate.add(self.round, RATE_HALF_ROUNDS, rate, |a, b| a > b);
        }
        new_round
    }

    /// The best of the newest rates, in bytes a second.
    pub(super) fn rate(&self) -> Option<u64> {
        self.rate.best(|a, b| a > b)
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// As much is kept as may be.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight + self.messages * MESSAGE >= UNACKED_MAX
    }

    #[cfg(test)]
    pub(super) fn set_rate(&mut self, rate: u64) {
        self.rate.add(0, RATE_HALF_ROUNDS, rate, |a, b| a > b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    /// One message of 1,000 bytes, acknowledged after `took` milliseconds.
    fn deliver(delivery: &mut Delivery, now: &mut u64, took: u64, limited_by_application: bool) {
        let stamp = delivery.handle_sent(at(*now), 1000, limited_by_application);
        *now += took;
        delivery.handle_acked(at(*now), 1000, &stamp);
        delivery.sample(at(*now), &stamp);
    }

    #[test]
    fn a_rate_is_what_was_delivered_since_the_message_left() {
        let mut delivery = Delivery::new(at(0));
        let first = delivery.handle_sent(at(10), 1000, false);
        let second = delivery.handle_sent(at(20), 3000, false);
        assert_eq!((delivery.in_flight(), delivery.rate()), (4000, None));
        delivery.handle_acked(at(60), 1000, &first);
        assert!(delivery.sample(at(60), &first), "the first round trip");
        assert_eq!((delivery.in_flight(), delivery.rate()), (3000, Some(20_000)));
        delivery.handle_acked(at(70), 3000, &second);
        assert!(!delivery.sample(at(70), &second), "it left in the same round trip");
        assert_eq!((delivery.in_flight(), delivery.rate()), (0, Some(66_666)));
        let third = delivery.handle_sent(at(80), 1000, false);
        delivery.handle_acked(at(90), 1000, &third);
        assert!(delivery.sample(at(90), &third));
        assert_eq!(delivery.rate(), Some(100_000), "idle time does not count");
    }

    #[test]
    fn acknowledgements_that_come_together_show_no_more_than_was_sent() {
        let mut delivery = Delivery::new(at(0));
        let first = delivery.handle_sent(at(100), 1000, false);
        let second = delivery.handle_sent(at(200), 1000, false);
        delivery.handle_acked(at(210), 1000, &first);
        let third = delivery.handle_sent(at(300), 1000, false);
        delivery.handle_acked(at(310), 1000, &second);
        delivery.handle_acked(at(310), 1000, &third);
        delivery.sample(at(310), &third);
        assert_eq!(delivery.rate(), Some(10_000), "2,000 bytes left in 200 ms");
    }

    #[test]
    fn a_slow_application_does_not_make_the_line_slower() {
        let (mut delivery, mut now) = (Delivery::new(at(0)), 0);
        deliver(&mut delivery, &mut now, 10, true);
        assert_eq!(delivery.rate(), Some(100_000));
        (0..20).for_each(|_| deliver(&mut delivery, &mut now, 100, true));
        assert_eq!(delivery.rate(), Some(100_000));
        deliver(&mut delivery, &mut now, 5, true);
        assert_eq!(delivery.rate(), Some(200_000), "what it shows is at least the line's");
        (0..20).for_each(|_| deliver(&mut delivery, &mut now, 100, false));
        assert_eq!(delivery.rate(), Some(10_000), "now it is the line's");
    }

    #[test]
    fn a_message_counts_with_what_it_takes_beside_its_payload() {
        let now = at(0);
        let full = |bytes: u64| {
            let mut delivery = Delivery::new(now);
            delivery.handle_sent(now, bytes, false);
            delivery.is_full()
        };
        assert_eq!([UNACKED_MAX - MESSAGE - 1, UNACKED_MAX - MESSAGE].map(full), [false, true]);
        let mut delivery = Delivery::new(now);
        let stamps: Vec<_> = (0..UNACKED_MAX / MESSAGE).map(|_| delivery.handle_sent(now, 0, false)).collect();
        assert!(delivery.is_full());
        delivery.handle_acked(now, 0, &stamps[0]);
        assert!(!delivery.is_full());
    }
}
