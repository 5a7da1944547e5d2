//! Whether the session's keys serve a transport, and what is sent so that they do.

use std::collections::VecDeque;

use bytes::BytesMut;
use mykube_protocol::{frame, limits::BAD_RECORDS_MAX};

use super::types::SessionError;
use crate::{record::RecordError, time::Time};

/// The transport under a session.
#[derive(Debug)]
pub(super) struct Attachment {
    /// The session's keys serve a transport that is not known to be gone.
    stands: bool,
    /// Attach frames and first records, sent before anything else.
    out: VecDeque<BytesMut>,
    /// The client asks again then.
    ask_due: Option<Time>,
    /// Consecutive records that did not open.
    bad_records: u32,
}

impl Attachment {
    /// The handshake's transport.
    pub(super) fn new() -> Self {
        Self { stands: true, out: VecDeque::new(), ask_due: None, bad_records: 0 }
    }

    pub(super) fn stands(&self) -> bool {
        self.stands
    }

    /// The transport is gone. The client asks for an attach at `ask_due`, if the relay does not make it ask before.
    pub(super) fn handle_lost(&mut self, ask_due: Option<Time>) {
        self.stands = false;
        self.out.clear();
        self.ask_due = ask_due;
    }

    /// The peer's first record on another transport opened.
    pub(super) fn handle_attached(&mut self) {
        self.stands = true;
    }

    /// The client sends `frame` in place of all that waited: its request to attach, or its first record after the agent's
    /// answer. Where no transport stands by `again`, it is to ask then.
    pub(super) fn ask(&mut self, frame: BytesMut, again: Time) {
        self.out.clear();
        self.push(frame);
        self.ask_due = Some(again);
    }

    /// The client shall not ask any more.
    pub(super) fn stop_asking(&mut self) {
        self.ask_due = None;
    }

    /// When the client asks again, while no transport stands.
    pub(super) fn ask_due(&self) -> Option<Time> {
        self.ask_due
    }

    /// The agent answers. One answer at a time, however often the question comes.
    pub(super) fn answer(&mut self, answer: BytesMut) {
        self.out.retain(|frame| frame.first() != Some(&frame::ATTACH_AGENT));
        self.push(answer);
    }

    /// Queues an attach frame, or a first record under an attach's keys, behind those that wait.
    pub(super) fn push(&mut self, frame: BytesMut) {
        self.out.push_back(frame);
    }

    /// The next frame that goes before anything else.
    pub(super) fn pop(&mut self) -> Option<BytesMut> {
        self.out.pop_front()
    }

    pub(super) fn has_frames(&self) -> bool {
        !self.out.is_empty()
    }

    /// A record of the peer opened.
    pub(super) fn handle_good(&mut self) {
        self.bad_records = 0;
    }

    /// A record did not open: ends the transport, and after five in a row the session.
    pub(super) fn count_bad(&mut self) -> SessionError {
        self.bad_records += 1;
        if self.bad_records >= BAD_RECORDS_MAX { SessionError::Forged } else { RecordError.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, n: u8) -> BytesMut {
        BytesMut::from(&[kind, n][..])
    }

    fn frames(attachment: &mut Attachment) -> Vec<u8> {
        std::iter::from_fn(|| attachment.pop()).map(|frame| frame[1]).collect()
    }

    #[test]
    fn the_newest_question_and_the_newest_answer_are_sent() {
        let (mut attachment, later) = (Attachment::new(), Time::from_micros(7));
        assert!(attachment.stands() && !attachment.has_frames());
        attachment.handle_lost(None);
        assert_eq!((attachment.stands(), attachment.ask_due()), (false, None));
        attachment.ask(frame(frame::ATTACH_CLIENT, 1), later);
        attachment.ask(frame(frame::ATTACH_CLIENT, 2), later);
        assert!(attachment.has_frames());
        assert_eq!((frames(&mut attachment), attachment.ask_due()), (vec![2], Some(later)));
        attachment.stop_asking();
        assert_eq!(attachment.ask_due(), None);
        attachment.answer(frame(frame::ATTACH_AGENT, 3));
        attachment.push(frame(frame::RECORD, 4));
        attachment.answer(frame(frame::ATTACH_AGENT, 5));
        assert_eq!(frames(&mut attachment), [4, 5]);
        attachment.push(frame(frame::RECORD, 6));
        attachment.handle_lost(Some(later));
        assert_eq!((frames(&mut attachment), attachment.ask_due()), (vec![], Some(later)));
        attachment.handle_attached();
        assert!(attachment.stands());
    }

    #[test]
    fn five_bad_records_in_a_row_end_the_session() {
        let mut attachment = Attachment::new();
        for _ in 0..2 {
            for _ in 1..BAD_RECORDS_MAX {
                assert_eq!(attachment.count_bad(), SessionError::Record(RecordError));
            }
            attachment.handle_good();
        }
        let last = (0..BAD_RECORDS_MAX).map(|_| attachment.count_bad()).last();
        assert_eq!(last, Some(SessionError::Forged));
    }
}
