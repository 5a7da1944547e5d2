//! How many streams there may be at once, and what their numbers are (docs/protocol.md, "Streams").
//!
//! First windows are reserved: 64 MiB, for 256 streams of 256 KiB. A client that wants more asks, once it has many; an
//! agent that knows the question keeps up to 1,024, those beyond 192 with a first window of 16 KiB, out of the same
//! 64 MiB. An agent that does not know it answers as to any target, and then there may be 256.

use std::time::Duration;

use mykube_protocol::{
    Role,
    channel::StreamId,
    limits::{
        AGENT_OPENS_PER_SECOND, FIRST_WINDOWS, NARROW_WINDOW, STREAM_WINDOW, STREAMS_ASK_AT, STREAMS_MAX,
        STREAMS_MAX_ASKED, STREAMS_WIDE_MAX,
    },
};

use super::types::OpenError;
use crate::time::Time;

/// Streams that one end has opened, by the width of their first window.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    wide: usize,
    narrow: usize,
}

impl Counts {
    fn of(&mut self, narrow: bool) -> &mut usize {
        if narrow { &mut self.narrow } else { &mut self.wide }
    }

    /// With one more, and all of `others`, they are no more than there may be.
    fn hold(mut self, narrow: bool, others: Self) -> bool {
        *self.of(narrow) += 1;
        let (wide, narrow) = (self.wide + others.wide, self.narrow + others.narrow);
        wide + narrow <= STREAMS_MAX_ASKED
            && wide as u64 * STREAM_WINDOW + narrow as u64 * NARROW_WINDOW <= FIRST_WINDOWS
    }
}

/// Whether the agent keeps more than 256 streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    /// The client has not asked.
    Unasked,
    /// The client has asked, on this stream.
    Asked(StreamId),
    Yes,
    No,
}

/// The streams of both ends, as numbers.
#[derive(Debug)]
pub(super) struct Slots {
    role: Role,
    ours: Counts,
    theirs: Counts,
    more: More,
    next_id: StreamId,
    peer_last_id: StreamId,
    /// Since when, and how many streams the agent has opened.
    agent_opens: (Time, u32),
}

impl Slots {
    pub(super) fn new(now: Time, role: Role) -> Self {
        Self {
            role,
            ours: Counts::default(),
            theirs: Counts::default(),
            more: More::Unasked,
            next_id: if role == Role::Client { 1 } else { 2 },
            peer_last_id: 0,
            agent_opens: (now, 0),
        }
    }

    /// Whether a stream of that number is this end's to open.
    pub(super) fn is_ours(&self, id: StreamId) -> bool {
        (id % 2 == 1) == (self.role == Role::Client)
    }

    /// Whether a stream of that number was opened.
    pub(super) fn was_opened(&self, id: StreamId) -> bool {
        id != 0 && if self.is_ours(id) { id < self.next_id } else { id <= self.peer_last_id }
    }

    /// The number of this end's next stream.
    pub(super) fn next_id(&mut self) -> Result<StreamId, OpenError> {
        let id = self.next_id;
        self.next_id = id.checked_add(2).ok_or(OpenError::Closed)?;
        Ok(id)
    }

    /// Whether the peer may open a stream of that number.
    pub(super) fn is_peers_next(&self, id: StreamId) -> bool {
        !self.is_ours(id) && id > self.peer_last_id
    }

    /// The peer has opened a stream of that number.
    pub(super) fn handle_opened(&mut self, id: StreamId) {
        self.peer_last_id = id;
    }

    /// A stream is kept.
    pub(super) fn take(&mut self, id: StreamId, narrow: bool) {
        *self.opener(id).of(narrow) += 1;
    }

    /// A stream is forgotten.
    pub(super) fn free(&mut self, id: StreamId, narrow: bool) {
        *self.opener(id).of(narrow) -= 1;
    }

    fn opener(&mut self, id: StreamId) -> &mut Counts {
        if self.is_ours(id) { &mut self.ours } else { &mut self.theirs }
    }

    /// Whether a client that has `open` streams is to ask whether there may be more.
    pub(super) fn wants_to_ask(&self, open: usize) -> bool {
        self.role == Role::Client && self.more == More::Unasked && open >= STREAMS_ASK_AT
    }

    /// The client asks, on that stream.
    pub(super) fn handle_asked(&mut self, id: StreamId) {
        self.more = More::Asked(id);
    }

    /// A stream has ended, cleanly or not. Gives whether it was the question's.
    pub(super) fn handle_answer(&mut self, id: StreamId, clean: bool) -> bool {
        let asked = self.more == More::Asked(id);
        if asked {
            self.more = if clean { More::Yes } else { More::No };
        }
        asked
    }

    /// Whether another stream of this end, beside `open` of both, is a narrow one.
    pub(super) fn find(&self, open: usize) -> Result<bool, OpenError> {
        let wide = self.ours.wide < STREAMS_WIDE_MAX;
        match self.more {
            More::Yes if open < STREAMS_MAX_ASKED => Ok(!wide),
            // The answer decides what the other slots are.
            More::Asked(_) if !wide => Err(OpenError::TooMany),
            More::Unasked | More::Asked(_) | More::No if open < STREAMS_MAX => Ok(false),
            _ => Err(OpenError::TooMany),
        }
    }

    /// Whether the peer may open another stream by its own count.
    pub(super) fn peer_counts(&self, narrow: bool) -> bool {
        self.theirs.hold(narrow, Counts::default())
    }

    /// Whether there is a slot for another one of the peer's.
    pub(super) fn has_room(&self, narrow: bool) -> bool {
        self.theirs.hold(narrow, self.ours)
    }

    /// The agent opens another one: whether it opens no more than it may in a second.
    pub(super) fn agent_may_open(&mut self, now: Time) -> bool {
        let (since, opened) = &mut self.agent_opens;
        if now.since(*since) >= Duration::from_secs(1) {
            (*since, *opened) = (now, 0);
        }
        *opened += 1;
        *opened <= AGENT_OPENS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that opens as many streams as it finds slots for.
    fn fill(slots: &mut Slots, open: &mut usize) -> (usize, usize) {
        let (mut wide, mut narrow) = (0, 0);
        while let Ok(is_narrow) = slots.find(*open) {
            let id = slots.next_id().unwrap();
            slots.take(id, is_narrow);
            *open += 1;
            *if is_narrow { &mut narrow } else { &mut wide } += 1;
        }
        (wide, narrow)
    }

    #[test]
    fn a_client_has_as_many_streams_as_the_agent_says() {
        let (mut slots, mut open) = (Slots::new(Time::default(), Role::Client), 0);
        assert!(!slots.wants_to_ask(STREAMS_ASK_AT - 1) && slots.wants_to_ask(STREAMS_ASK_AT));
        slots.handle_asked(1);
        assert!(!slots.wants_to_ask(STREAMS_MAX));
        assert_eq!(fill(&mut slots, &mut open), (STREAMS_WIDE_MAX, 0), "what the others are is not known");
        assert!(!slots.handle_answer(3, true) && slots.handle_answer(1, true));
        assert_eq!(fill(&mut slots, &mut open), (0, STREAMS_MAX_ASKED - STREAMS_WIDE_MAX));
        let (mut slots, mut open) = (Slots::new(Time::default(), Role::Client), 0);
        slots.handle_asked(1);
        slots.handle_answer(1, false);
        assert_eq!(fill(&mut slots, &mut open), (STREAMS_MAX, 0));
        slots.free(1, false);
        assert_eq!(slots.find(open - 1), Ok(false));
    }

    #[test]
    fn each_end_numbers_its_own_streams() {
        let mut slots = Slots::new(Time::default(), Role::Agent);
        assert_eq!([slots.next_id(), slots.next_id()], [Ok(2), Ok(4)]);
        assert_eq!([0, 1, 2, 4, 6].map(|id| slots.was_opened(id)), [false, false, true, true, false]);
        assert_eq!([1, 2, 7].map(|id| slots.is_peers_next(id)), [true, false, true]);
        slots.handle_opened(7);
        assert_eq!([5, 7, 9].map(|id| slots.is_peers_next(id)), [false, false, true]);
        assert!(slots.was_opened(5) && !slots.was_opened(9));
        slots.next_id = StreamId::MAX - 1;
        assert_eq!(slots.next_id(), Err(OpenError::Closed));
    }

    #[test]
    fn an_agent_opens_fifty_streams_a_second() {
        let mut slots = Slots::new(Time::default(), Role::Client);
        let opened = |slots: &mut Slots, now| (0..60).filter(|_| slots.agent_may_open(now)).count();
        assert_eq!(opened(&mut slots, Time::from_micros(999_999)), 50);
        assert_eq!(opened(&mut slots, Time::from_micros(1_000_000)), 50);
    }
}
