//! How many streams there may be at once (docs/protocol.md, "Streams").
//!
//! First windows are reserved: 64 MiB, for 256 streams of 256 KiB. A client that wants more asks, once it has many; an
//! agent that knows the question keeps up to 1,024, those beyond 192 with a first window of 16 KiB, out of the same
//! 64 MiB. An agent that does not know it answers as to any target, and 256 is what there is.

use mykube_protocol::{
    Role,
    channel::{STREAMS_ASK, StreamId},
    limits::{STREAMS_ASK_AT, STREAMS_MAX, STREAMS_MAX_ASKED, STREAMS_WIDE_MAX},
};

use super::{
    Session,
    counts::{More, Places},
    types::OpenError,
};
use crate::{
    stream::{Ending, Item, Stream},
    time::Time,
};

impl Session {
    /// A place for another stream of this end: whether it is a narrow one.
    pub(super) fn place(&mut self, now: Time) -> Result<bool, OpenError> {
        let open = self.streams.len();
        if self.role == Role::Client && self.more == More::Unasked && open >= STREAMS_ASK_AT {
            self.ask_for_more(now)?;
        }
        let open = self.streams.len();
        let wide = self.ours.wide < STREAMS_WIDE_MAX;
        match self.more {
            More::Yes if open < STREAMS_MAX_ASKED => Ok(!wide),
            // The answer decides what the other places are.
            More::Asked(_) if !wide => Err(OpenError::TooMany),
            More::Unasked | More::Asked(_) | More::No if open < STREAMS_MAX => Ok(false),
            _ => Err(OpenError::TooMany),
        }
    }

    fn ask_for_more(&mut self, now: Time) -> Result<(), OpenError> {
        let id = self.next_id()?;
        let mut stream = Stream::new(false);
        stream.outbox.extend([Item::New(Some(STREAMS_ASK.to_owned())), Item::Eof]);
        stream.eof_sent = true;
        self.keep_stream(id, stream);
        self.more = More::Asked(id);
        self.activate(now, id, false);
        Ok(())
    }

    /// The question's stream is over.
    pub(super) fn answered_for_more(&mut self, now: Time, id: StreamId, ending: &Ending) {
        if self.more == More::Asked(id) {
            self.more = if *ending == Ending::Clean { More::Yes } else { More::No };
            self.release(now, id, None);
        }
    }

    /// Whether the peer may open another stream by its own count.
    pub(super) fn peer_counts(&self, narrow: bool) -> bool {
        self.theirs.hold(narrow, Places::default())
    }

    /// Whether there is a place for another one of the peer's.
    pub(super) fn has_place(&self, narrow: bool) -> bool {
        self.theirs.hold(narrow, self.ours)
    }

    pub(super) fn next_id(&mut self) -> Result<StreamId, OpenError> {
        let id = self.next_id;
        self.next_id = id.checked_add(2).ok_or(OpenError::Closed)?;
        Ok(id)
    }

    pub(super) fn keep_stream(&mut self, id: StreamId, stream: Stream) {
        *self.opener(id).of(stream.narrow) += 1;
        self.streams.insert(id, stream);
    }

    pub(super) fn free_place(&mut self, id: StreamId, narrow: bool) {
        *self.opener(id).of(narrow) -= 1;
    }

    fn opener(&mut self, id: StreamId) -> &mut Places {
        if self.is_ours(id) { &mut self.ours } else { &mut self.theirs }
    }
}
