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
        if !newest.limited_by_application || self.rate().is_none_or(|best| rate > best) {
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
