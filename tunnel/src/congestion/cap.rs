//! How much bulk may be under way: `max(64 KiB, g x minimum RTT x delivery rate + record + slack)`.

use std::time::Duration;

use mykube_protocol::limits::{ACK_BYTES_MAX, RECORD_PLAINTEXT_MAX};

use super::{delivery::UNACKED_MAX, units::bytes_in};

/// The cap never falls below this, so that a line always has a full acknowledgement's worth under way.
pub(super) const FLOOR: u64 = 64 * 1024;
/// Where bytes are quick, turns of the processor are the slow part: the cap leaves room for what comes in this time, or
/// a sender that waits for a slower turn than its best one would measure its own waiting, and go on waiting. It is also
/// room for the longer steps in which quick bytes are acknowledged, and what pacing lets leave at once.
pub(super) const SLACK_TIME: Duration = Duration::from_millis(4);
pub(super) const SLACK: u64 = ACK_BYTES_MAX;
/// The slack where bulk is alone: with less one end, or the relay, has nothing to do while the other works. What it
/// costs is a wait of as much as [`SLACK_TIME`] for the first word of a stream with little to say.
const SLACK_ALONE: u64 = 2 * 1024 * 1024;
/// A record counts when all of it is there.
const RECORD: u64 = RECORD_PLAINTEXT_MAX as u64;
/// The part of the bandwidth-delay product that is asked for beyond it: what shows that a line has become quicker.
const BEYOND: u64 = 32;

/// What is known of a line.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub(super) min_rtt: Option<Duration>,
    /// Bytes a second.
    pub(super) rate: Option<u64>,
    /// What the line takes is known.
    pub(super) settled: bool,
    /// The newest acknowledgement took longer than the path does.
    pub(super) queued: bool,
    /// No stream with little to say has spoken for a while.
    pub(super) alone: bool,
}

impl Line {
    /// What the line itself holds: the bandwidth-delay product.
    pub(super) fn product(&self) -> Option<u64> {
        self.min_rtt.zip(self.rate).map(|(rtt, rate)| bytes_in(rate, rtt))
    }

    /// The cap, but for what has come and is not yet acknowledged.
    pub(super) fn cap_on_the_line(&self) -> u64 {
        let Some((product, rate)) = self.product().zip(self.rate) else { return FLOOR };
        let beyond = match self.queued {
            _ if self.settled => product / BEYOND,
            true => product / 2,
            false => product,
        };
        let most = if self.alone { SLACK_ALONE } else { SLACK };
        let slack = bytes_in(rate, SLACK_TIME).min(most);
        product.saturating_add(beyond).saturating_add(slack + RECORD).clamp(FLOOR, UNACKED_MAX)
    }

    /// The cap, where acknowledgements come `ack_interval` after one another.
    pub(super) fn cap(&self, ack_interval: Duration) -> u64 {
        let unheard = bytes_in(self.rate.unwrap_or(0), ack_interval);
        self.cap_on_the_line().saturating_add(unheard.saturating_sub(RECORD)).min(UNACKED_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// A megabyte of it is the line's product.
    const LINE: Line = Line {
        min_rtt: Some(Duration::from_millis(100)),
        rate: Some(10_000_000),
        settled: true,
        queued: false,
        alone: false,
    };

    #[test]
    fn bulk_is_the_lines_product_with_what_is_asked_for_beyond_it() {
        let without_slack = |line: Line| line.cap_on_the_line() - 40_000 - RECORD;
        assert_eq!(LINE.product(), Some(1_000_000));
        assert_eq!(without_slack(LINE), 1_031_250);
        assert_eq!(without_slack(Line { queued: true, ..LINE }), 1_031_250);
        assert_eq!(without_slack(Line { settled: false, ..LINE }), 2_000_000);
        assert_eq!(without_slack(Line { settled: false, queued: true, ..LINE }), 1_500_000);
    }

    #[test]
    fn the_cap_has_a_floor_and_a_ceiling() {
        for line in [Line { rate: None, ..LINE }, Line { min_rtt: None, ..LINE }, Line { rate: Some(1000), ..LINE }] {
            assert_eq!(line.cap(Duration::ZERO), 65_536);
        }
        let quick = Line { rate: Some(10_000_000_000), ..LINE };
        assert_eq!((quick.cap_on_the_line(), quick.cap(MS)), (UNACKED_MAX, UNACKED_MAX));
    }

    #[test]
    fn the_slack_is_bounded_and_more_where_bulk_is_alone() {
        let quick = Line { min_rtt: Some(MS), rate: Some(1_000_000_000), ..LINE };
        let slack = |line: Line| line.cap_on_the_line() - 1_031_250 - RECORD;
        assert_eq!([quick, Line { alone: true, ..quick }].map(slack), [ACK_BYTES_MAX, 2_097_152]);
    }

    #[test]
    fn what_comes_between_two_acknowledgements_is_room_beyond_a_record() {
        assert_eq!(LINE.cap(MS), LINE.cap_on_the_line(), "no more than the record that counts already");
        assert_eq!(LINE.cap(20 * MS), LINE.cap_on_the_line() + 200_000 - RECORD);
    }
}
