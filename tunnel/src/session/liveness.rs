//! Whether the transport lives: a peer that owes a word says it, or is asked for it, in time.

use std::time::Duration;

use mykube_protocol::limits::{DEAD_AFTER, JUMP_TIMEOUT, PING_TIMEOUT, PROBE_AFTER};

use crate::time::Time;

/// What the peer owes, if it owes anything.
#[derive(Debug, Default)]
pub(super) struct Liveness(Option<Owed>);

/// The peer owes this end a word.
#[derive(Debug, Clone, Copy)]
struct Owed {
    since: Time,
    /// A ping has asked for it.
    probed: bool,
    /// After a jump of the clock or a change of route there is less patience.
    within: Option<Duration>,
}

/// What this end waits for, and how far away the peer is.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    /// An acknowledgement; otherwise the answer to a ping.
    pub(super) for_ack: bool,
    /// The smoothed round trip.
    pub(super) rtt: Option<Duration>,
}

impl Waits {
    fn patience(self, owed: Owed) -> Duration {
        owed.within.unwrap_or(if self.for_ack { DEAD_AFTER } else { PING_TIMEOUT })
    }

    fn probe_after(self) -> Duration {
        PROBE_AFTER.max(self.rtt.unwrap_or_default() * 3)
    }
}

/// What follows from a liveness.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Patience,
    /// The peer is to be asked.
    Ask,
    /// The transport is dead.
    Dead,
}

impl Liveness {
    /// A record of the peer came, or the transport is gone: nothing is owed any more.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// The peer owes a word from now on, if it did not before.
    pub(super) fn expect(&mut self, now: Time) {
        self.0.get_or_insert(Owed { since: now, probed: false, within: None });
    }

    /// The peer was asked, and must answer soon.
    pub(super) fn probe(&mut self, now: Time) {
        self.0 = Some(Owed { since: now, probed: true, within: Some(JUMP_TIMEOUT) });
    }

    /// Whether the peer must answer soon, and has not yet.
    pub(super) fn is_probing(&self) -> bool {
        self.0.is_some_and(|owed| owed.within.is_some())
    }

    /// When [`Liveness::handle_timeout`] is to be called.
    pub(super) fn due(&self, waits: Waits) -> Option<Time> {
        let owed = self.0?;
        let dead = owed.since + waits.patience(owed);
        Some(if owed.probed { dead } else { dead.min(owed.since + waits.probe_after()) })
    }

    /// Time has passed: gives what follows.
    pub(super) fn handle_timeout(&mut self, now: Time, waits: Waits) -> Verdict {
        match &mut self.0 {
            Some(owed) if now >= owed.since + waits.patience(*owed) => Verdict::Dead,
            Some(owed) if !owed.probed && now >= owed.since + waits.probe_after() => {
                owed.probed = true;
                Verdict::Ask
            }
            _ => Verdict::Patience,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Waits = Waits { for_ack: false, rtt: None };
    const ACK: Waits = Waits { for_ack: true, rtt: None };

    #[test]
    fn a_silent_peer_is_asked_once_and_then_given_up() {
        let (mut liveness, start) = (Liveness::default(), Time::from_micros(1_000_000));
        assert_eq!((liveness.due(ACK), liveness.handle_timeout(start, ACK)), (None, Verdict::Patience));
        liveness.expect(start);
        liveness.expect(start + PROBE_AFTER);
        assert_eq!(liveness.due(ACK), Some(start + PROBE_AFTER), "since the first");
        assert_eq!(liveness.handle_timeout(start + PROBE_AFTER, ACK), Verdict::Ask);
        assert_eq!(liveness.handle_timeout(start + PROBE_AFTER, ACK), Verdict::Patience);
        assert_eq!((liveness.due(ACK), liveness.due(ANSWER)), (Some(start + DEAD_AFTER), Some(start + PING_TIMEOUT)));
        assert_eq!(liveness.handle_timeout(start + DEAD_AFTER, ACK), Verdict::Dead);
        liveness.clear();
        assert_eq!(liveness.handle_timeout(start + DEAD_AFTER, ACK), Verdict::Patience);
    }

    #[test]
    fn a_long_path_is_asked_later_and_a_probe_has_two_seconds() {
        let (mut liveness, start) = (Liveness::default(), Time::from_micros(1_000_000));
        liveness.expect(start);
        let far = Waits { rtt: Some(PROBE_AFTER), ..ACK };
        assert_eq!(liveness.due(far), Some(start + PROBE_AFTER * 3));
        assert!(!liveness.is_probing());
        liveness.probe(start);
        assert!(liveness.is_probing());
        assert_eq!(liveness.due(far), Some(start + JUMP_TIMEOUT));
        assert_eq!(liveness.handle_timeout(start + JUMP_TIMEOUT, far), Verdict::Dead);
    }
}
