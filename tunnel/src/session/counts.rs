//! Streams, counted by who has opened them and how wide they are.

use mykube_protocol::{
    channel::StreamId,
    limits::{FIRST_WINDOWS, NARROW_WINDOW, STREAM_WINDOW, STREAMS_MAX_ASKED},
};

/// Streams that one end has opened.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Places {
    pub(super) wide: usize,
    narrow: usize,
}

impl Places {
    pub(super) fn of(&mut self, narrow: bool) -> &mut usize {
        if narrow { &mut self.narrow } else { &mut self.wide }
    }

    /// With one more, and all of `others`, they are no more than there may be.
    pub(super) fn hold(mut self, narrow: bool, others: Self) -> bool {
        *self.of(narrow) += 1;
        let (wide, narrow) = (self.wide + others.wide, self.narrow + others.narrow);
        wide + narrow <= STREAMS_MAX_ASKED
            && wide as u64 * STREAM_WINDOW + narrow as u64 * NARROW_WINDOW <= FIRST_WINDOWS
    }
}

/// Whether the agent keeps more than 256 streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// Nobody has asked.
    Unasked,
    /// On this stream.
    Asked(StreamId),
    Yes,
    No,
}
