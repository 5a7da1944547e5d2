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
