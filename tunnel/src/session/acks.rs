//! Acknowledgements: what this end has received, and when it says so.

use std::time::Duration;

use mykube_protocol::limits::{ACK_BYTES, ACK_BYTES_MAX, ACK_BYTES_MIN};

use crate::{congestion::Congestion, time::Time};

/// A step of acknowledgement that comes in this time may be twice as long.
const ACK_QUICK: Duration = Duration::from_millis(1);

/// How much of what was received has been acknowledged, and when the next acknowledgement leaves.
#[derive(Debug)]
pub(super) struct Acks {
    received_m: u64,
    told_m: u64,
    untold_bytes: u64,
    /// This many bytes are worth an acknowledgement.
    step: u64,
    /// When an acknowledgement, or credit, last left.
    told_at: Time,
    due: Option<Time>,
}

impl Acks {
    pub(super) fn new(now: Time) -> Self {
        Self { received_m: 0, told_m: 0, untold_bytes: 0, step: ACK_BYTES, told_at: now, due: None }
    }

    /// How many numbered messages have come.
    pub(super) fn received(&self) -> u64 {
        self.received_m
    }

    /// A numbered message came, with `bytes` of payload.
    pub(super) fn handle_received(&mut self, now: Time, bytes: u64, path: &Congestion) {
        self.received_m += 1;
        self.untold_bytes += bytes;
        let due = self.due.unwrap_or_else(|| now + path.ack_delay());
        let enough = self.untold_bytes >= self.step;
        self.due = Some(if enough { due.min(self.earliest(path)) } else { due });
    }

    /// The peer waits for the next acknowledgement: it leaves at once.
    pub(super) fn hurry(&mut self, now: Time) {
        self.due = Some(now);
    }

    /// The earliest time at which an acknowledgement, or credit, may be sent alone.
    pub(super) fn earliest(&self, path: &Congestion) -> Time {
        self.told_at + path.ack_interval()
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.is_owing() && self.due.is_some_and(|due| due <= now)
    }

    /// Whether something came that was not acknowledged.
    pub(super) fn is_owing(&self) -> bool {
        self.received_m > self.told_m
    }

    /// Whether an acknowledgement is worth its place in a record that leaves anyway.
    pub(super) fn is_worthwhile(&self) -> bool {
        self.is_owing() && self.untold_bytes >= self.step / 4
    }

    /// An acknowledgement leaves: of how many messages.
    pub(super) fn tell(&mut self, now: Time) -> u64 {
        self.choose_step(now);
        self.handle_told();
        self.received_m
    }

    /// Where payload is quick, an acknowledgement for each 64 KiB would be most of what is done; where it is not, they
    /// are what keeps it flowing.
    fn choose_step(&mut self, now: Time) {
        let took = now.since(self.told_at);
        if self.untold_bytes >= self.step && took <= ACK_QUICK {
            self.step = (self.step * 2).min(ACK_BYTES_MAX);
        } else if took > ACK_QUICK * 4 {
            self.step = (self.step / 2).max(ACK_BYTES_MIN);
        }
        self.told_at = now;
    }

    /// The peer has been told of all that came; an attach's first record does so too.
    pub(super) fn handle_told(&mut self) {
        self.told_m = self.received_m;
        self.untold_bytes = 0;
        self.due = None;
    }

    /// Credit leaves.
    pub(super) fn handle_credit_told(&mut self, now: Time) {
        self.told_at = now;
    }
}

#[cfg(test)]
mod tests {
    use mykube_protocol::limits::ACK_DELAY;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    /// A path whose round trip is `rtt`.
    fn path(rtt: Duration) -> Congestion {
        let mut path = Congestion::new(at(0));
        path.handle_rtt(at(0), rtt);
        path
    }

    #[test]
    fn little_is_acknowledged_late() {
        let (mut acks, path) = (Acks::new(at(0)), path(MS));
        assert!(!acks.is_owing(), "nothing came");
        acks.handle_received(at(10), 1, &path);
        acks.handle_received(at(11), 1, &path);
        assert!(acks.is_owing() && !acks.is_worthwhile());
        assert_eq!(acks.due(), Some(at(10) + ACK_DELAY), "by the first");
        assert!(!acks.is_due(at(11)) && acks.is_due(at(10) + ACK_DELAY));
        assert_eq!(acks.tell(at(11)), 2);
        assert_eq!((acks.due(), acks.is_owing(), acks.is_due(at(99))), (None, false, false), "once");
        acks.handle_received(at(100), 0, &path);
        acks.hurry(at(100));
        assert!(acks.is_due(at(100)));
        assert_eq!(acks.tell(at(100)), 3);
    }

    #[test]
    fn a_quarter_of_a_step_is_worth_its_place_in_any_record() {
        let (mut acks, path) = (Acks::new(at(0)), path(MS));
        acks.handle_received(at(1), ACK_BYTES / 4 - 1, &path);
        assert!(!acks.is_worthwhile());
        acks.handle_received(at(1), 1, &path);
        assert!(acks.is_worthwhile() && !acks.is_due(at(1)));
        acks.tell(at(1));
        assert!(!acks.is_worthwhile());
    }

    #[test]
    fn a_step_is_due_at_once_and_on_a_long_path_a_fifth_of_the_round_trip_after_the_last() {
        let mut acks = Acks::new(at(0));
        acks.handle_received(at(1), ACK_BYTES, &path(MS));
        assert!(acks.is_due(at(1)));
        let (mut acks, path) = (Acks::new(at(0)), path(MS * 100));
        acks.handle_received(at(1), ACK_BYTES, &path);
        assert_eq!(acks.due(), Some(at(20)));
        acks.handle_credit_told(at(5));
        assert_eq!(acks.earliest(&path), at(25), "credit counts too");
        acks.handle_received(at(6), 1, &path);
        assert_eq!(acks.due(), Some(at(20)), "never later than it was");
    }

    #[test]
    fn steps_follow_how_quickly_bytes_come() {
        let (mut acks, path, mut now) = (Acks::new(at(0)), path(MS), at(0));
        let mut steps = |apart: Duration| {
            [(); 5].map(|()| {
                now = now + apart;
                acks.handle_received(now, acks.step, &path);
                acks.tell(now);
                acks.step
            })
        };
        assert_eq!(steps(MS), [ACK_BYTES_MAX; 5]);
        assert_eq!(steps(4 * MS), [ACK_BYTES_MAX; 5], "neither quick nor slow");
        assert_eq!(steps(5 * MS), [2, 4, 8, 16, 16].map(|part| ACK_BYTES_MAX / part));
        assert_eq!(ACK_BYTES_MAX / 16, ACK_BYTES_MIN);
    }

    #[test]
    fn an_attach_has_told_what_came_before_it() {
        let (mut acks, path) = (Acks::new(at(0)), path(MS));
        acks.handle_received(at(1), ACK_BYTES, &path);
        acks.handle_told();
        assert_eq!((acks.received(), acks.due(), acks.is_owing()), (1, None, false));
    }
}
