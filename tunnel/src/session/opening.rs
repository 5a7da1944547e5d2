//! How streams come to be: by the application, and by the peer.

use mykube_protocol::{
    Role,
    channel::{Control, STREAM_NARROW, STREAMS_ASK, StreamId},
};

use super::{
    Session,
    types::{Event, OpenError, SessionError, SessionError::Misbehaved},
};
use crate::{
    stream::{Ending, Item, Stream},
    time::Time,
};

/// A target, so that its `new:{id}:` stays below 4 KiB. Nothing that long is on an allow-list.
const TARGET_MAX: usize = 4000;

impl Session {
    /// Opens a stream to the API server, or to a target the agent allows (4,000 bytes of it). Bytes may follow at once.
    ///
    /// # Errors
    /// As many streams are open as there may be (256, or 1,024 where the agent keeps that many), or the session is over.
    pub fn open(&mut self, now: Time, target: Option<String>) -> Result<StreamId, OpenError> {
        if self.farewell.is_over() {
            return Err(OpenError::Closed);
        }
        if self.slots.wants_to_ask(self.streams.len()) {
            self.ask_for_more(now)?;
        }
        let narrow = self.slots.find(self.streams.len())?;
        // `new` says that a stream is narrow where a target would stand, so there is no narrow stream to a target.
        if narrow && target.is_some() {
            return Err(OpenError::TooMany);
        }
        let id = self.slots.next_id()?;
        let target = if narrow { Some(STREAM_NARROW.to_owned()) } else { target };
        let mut stream = Stream::new(narrow);
        stream.outbox.push_back(Item::New(target.map(|target| cut(target, TARGET_MAX))));
        self.keep_stream(id, stream);
        self.activate(now, id, false);
        Ok(id)
    }

    /// Asks the agent, on a stream of its own, whether there may be more streams.
    fn ask_for_more(&mut self, now: Time) -> Result<(), OpenError> {
        let id = self.slots.next_id()?;
        let mut stream = Stream::new(false);
        stream.outbox.extend([Item::New(Some(STREAMS_ASK.to_owned())), Item::Eof]);
        stream.eof_sent = true;
        self.keep_stream(id, stream);
        self.slots.handle_asked(id);
        self.activate(now, id, false);
        Ok(())
    }

    /// A stream has ended: if it was the question's, that is the answer.
    pub(super) fn answered_for_more(&mut self, now: Time, id: StreamId, ending: &Ending) {
        if self.slots.handle_answer(id, *ending == Ending::Clean) {
            self.release(now, id, None);
        }
    }

    /// The peer opens a stream.
    pub(super) fn handle_new(&mut self, now: Time, id: StreamId, target: Option<String>) -> Result<(), SessionError> {
        if !self.slots.is_peers_next(id) {
            return Err(Misbehaved("a stream number that is not the peer's next"));
        }
        let from_client = self.role == Role::Agent;
        let narrow = from_client && target.as_deref() == Some(STREAM_NARROW);
        // The peer counts its own; only both ends' together may be more without its fault.
        if !self.slots.peer_counts(narrow) {
            return Err(Misbehaved("more streams at once than there may be"));
        }
        self.slots.handle_opened(id);
        if from_client && target.as_deref() == Some(STREAMS_ASK) {
            self.control.push(Control::Done { id, reason: None });
            return self.check_control();
        }
        if !self.slots.has_room(narrow) {
            return self.refuse(id, "all streams of the session are in use");
        }
        // Not the agent's fault either, when the line held back what it opened over many seconds.
        if !from_client && !self.slots.agent_may_open(now) {
            return self.refuse(id, "more than 50 streams a second");
        }
        self.keep_stream(id, Stream::new(narrow));
        let target = target.filter(|_| !narrow);
        self.events.push_back(Event::Opened { id, target });
        Ok(())
    }

    /// Answers a stream that is not taken on; what the peer has sent on it already is dropped.
    fn refuse(&mut self, id: StreamId, reason: &str) -> Result<(), SessionError> {
        self.control.push(Control::Done { id, reason: Some(reason.to_owned()) });
        self.check_control()
    }

    fn keep_stream(&mut self, id: StreamId, stream: Stream) {
        self.slots.take(id, stream.narrow);
        self.streams.insert(id, stream);
    }
}

/// At most `max` bytes of a text.
fn cut(mut text: String, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}
