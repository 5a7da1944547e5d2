//! One stream's two queues and where it stands between `new` and `done`.

use std::{collections::VecDeque, ops::Range};

use bytes::{Bytes, BytesMut};
use mykube_protocol::limits::{NARROW_WINDOW, RECORD_PLAINTEXT_MAX, STREAM_WINDOW, STREAM_WINDOW_MAX};

use crate::{flow::RecvWindow, schedule::Turn, time::Time};

/// Payloads up to this length are copied together, so that none of them keeps a record, or the buffer it was read into,
/// in memory, and they do not each cost an entry in a queue.
const SMALL: usize = 2 * 1024;
/// ... up to this length: what is left of them keeps no more than that.
const JOINED_MAX: usize = RECORD_PLAINTEXT_MAX;

/// What waits to be sent, in its order.
#[derive(Debug)]
pub(crate) enum Item {
    New(Option<String>),
    Data(Bytes),
    /// Small payloads, copied into one.
    Joined(BytesMut),
    Eof,
    Done(Option<String>),
}

impl Item {
    /// Payload in it.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Data(payload) => payload.len(),
            Self::Joined(payload) => payload.len(),
            Self::New(_) | Self::Eof | Self::Done(_) => 0,
        }
    }

    /// Takes `len` bytes of its payload, from the front.
    pub(crate) fn split_to(&mut self, len: usize) -> Bytes {
        match self {
            Self::Data(payload) => payload.split_to(len),
            Self::Joined(payload) if payload.len() == len => std::mem::take(payload).freeze(),
            Self::Joined(payload) => payload.split_to(len).freeze(),
            Self::New(_) | Self::Eof | Self::Done(_) => Bytes::new(),
        }
    }
}

/// How far the stream is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// `done` without a reason.
    Clean,
    /// `done` with one.
    Failed(String),
}

#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each says what one end has said or wants to hear, and none excludes another"
)]
pub(crate) struct Stream {
    pub(crate) turn: Turn,
    /// Its first window is the narrow one.
    pub(crate) narrow: bool,
    pub(crate) outbox: VecDeque<Item>,
    /// Payload in `outbox`.
    pub(crate) queued: usize,
    /// What the peer lets us send.
    pub(crate) credit: u64,
    /// Since when that is zero, if it is.
    pub(crate) dry_since: Time,
    pub(crate) window: RecvWindow,
    inbox: VecDeque<Bytes>,
    tail: BytesMut,
    pub(crate) unread: u64,
    /// Bytes that the application was last given. They have left this end's memory when it asks for more.
    pub(crate) in_hand: u64,
    /// The application found nothing to read and wants to know when there is.
    pub(crate) read_waits: bool,
    /// The application could not write and wants to know when it can.
    pub(crate) write_waits: bool,
    pub(crate) eof_sent: bool,
    pub(crate) eof_received: bool,
    pub(crate) done_received: Option<Ending>,
    pub(crate) done_queued: bool,
    pub(crate) done_sent: bool,
    /// The application is through with it.
    pub(crate) released: bool,
}

impl Stream {
    pub(crate) fn new(narrow: bool) -> Self {
        let first = if narrow { NARROW_WINDOW } else { STREAM_WINDOW };
        Self {
            turn: Turn::default(),
            narrow,
            outbox: VecDeque::new(),
            queued: 0,
            credit: first,
            dry_since: Time::default(),
            window: RecvWindow::new(first, STREAM_WINDOW_MAX),
            inbox: VecDeque::new(),
            tail: BytesMut::new(),
            unread: 0,
            in_hand: 0,
            read_waits: false,
            write_waits: false,
            eof_sent: false,
            eof_received: false,
            done_received: None,
            done_queued: false,
            done_sent: false,
            released: false,
        }
    }

    /// Whether something may be sent now.
    pub(crate) fn is_ready(&self, session_credit: u64) -> bool {
        match self.outbox.front() {
            Some(Item::Data(_) | Item::Joined(_)) => self.credit > 0 && session_credit > 0,
            Some(_) => true,
            None => false,
        }
    }

    /// Takes payload from the application, to be sent after what waits already.
    pub(crate) fn push_outbox(&mut self, payload: Bytes) {
        self.queued += payload.len();
        match self.outbox.back_mut() {
            _ if payload.len() > SMALL => self.outbox.push_back(Item::Data(payload)),
            Some(Item::Joined(before)) if before.len() + payload.len() <= JOINED_MAX => {
                before.extend_from_slice(&payload);
            }
            _ => self.outbox.push_back(Item::Joined(BytesMut::from(&payload[..]))),
        }
    }

    /// Takes payload that arrived, `range` of a record's plaintext: a slice of it where that keeps little else in memory.
    pub(crate) fn push_inbox(&mut self, plaintext: &Bytes, range: Range<usize>) {
        let len = range.len();
        self.unread += len as u64;
        if len > SMALL || self.tail.len() + len > JOINED_MAX {
            self.end_tail();
        }
        if len <= SMALL {
            self.tail.extend_from_slice(&plaintext[range]);
        } else if len * 4 < plaintext.len() * 3 {
            self.inbox.push_back(Bytes::copy_from_slice(&plaintext[range]));
        } else {
            self.inbox.push_back(plaintext.slice(range));
        }
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.inbox.push_back(self.tail.split().freeze());
        }
    }

    /// The oldest chunk that was not read: at most a record of payload.
    pub(crate) fn pop_inbox(&mut self) -> Option<Bytes> {
        let chunk = match self.inbox.pop_front() {
            Some(chunk) => chunk,
            None if self.tail.is_empty() => return None,
            None => self.tail.split().freeze(),
        };
        self.unread -= chunk.len() as u64;
        Some(chunk)
    }

    /// Drops what was not sent yet, but the `new` that must go first and the `done` that must go last.
    pub(crate) fn clear_outbox(&mut self) {
        self.outbox.retain(|item| matches!(item, Item::New(_) | Item::Done(_)));
        self.queued = 0;
    }

    /// Drops what was not read yet and says how much, with what the application had in hand.
    pub(crate) fn clear_inbox(&mut self) -> u64 {
        self.inbox = VecDeque::new();
        self.tail = BytesMut::new();
        std::mem::take(&mut self.unread) + std::mem::take(&mut self.in_hand)
    }

    /// Whether the peer is to send more. Where nobody reads any more it is, as long as this end's own words wait: it may have to
    /// be rid of its own before it takes them.
    pub(crate) fn wants_more(&self) -> bool {
        let deaf = self.released && self.queued == 0;
        !deaf && !self.eof_received && self.done_received.is_none()
    }

    /// Whether something waits that the application has let go of as failed.
    pub(crate) fn is_owed(&self) -> bool {
        self.released && self.queued > 0 && matches!(self.outbox.back(), Some(Item::Done(Some(_))))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.released && self.done_sent && self.done_received.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(len: usize) -> Bytes {
        (0..=250).cycle().take(len).collect()
    }

    #[test]
    fn what_is_kept_of_a_record_keeps_little_else() {
        let mut stream = Stream::new(false);
        let plaintext = record(RECORD_PLAINTEXT_MAX);
        let three_quarters = RECORD_PLAINTEXT_MAX * 3 / 4;
        for len in [1, SMALL, SMALL + 1, three_quarters - 1] {
            stream.push_inbox(&plaintext, 9..9 + len);
            assert!(plaintext.is_unique(), "{len} bytes keep the whole record");
        }
        stream.push_inbox(&plaintext, 9..9 + three_quarters);
        assert!(!plaintext.is_unique(), "bulk is not copied");
        let chunks: Vec<_> = std::iter::from_fn(|| stream.pop_inbox()).collect();
        let lens = [1 + SMALL, SMALL + 1, three_quarters - 1, three_quarters];
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), lens);
        assert_eq!(chunks[3], plaintext[9..9 + three_quarters]);
    }

    #[test]
    fn small_payloads_are_joined_to_chunks_no_longer_than_a_record() {
        let mut stream = Stream::new(false);
        let plaintext = record(300);
        let mut sent = Vec::new();
        for n in 0..400 {
            stream.push_inbox(&plaintext, n % 100..n % 100 + 150);
            stream.push_outbox(plaintext.slice(n % 100..n % 100 + 150));
            sent.extend_from_slice(&plaintext[n % 100..n % 100 + 150]);
        }
        assert_eq!((stream.unread, stream.queued), (60_000, 60_000));
        let chunks: Vec<_> = std::iter::from_fn(|| stream.pop_inbox()).collect();
        assert!(chunks.len() == 4 && chunks.iter().all(|chunk| chunk.len() <= JOINED_MAX));
        assert_eq!(chunks.concat(), sent);
        assert!(stream.outbox.len() == 4 && stream.outbox.iter().all(|item| item.len() <= JOINED_MAX));
        let parts: Vec<_> =
            stream.outbox.iter_mut().flat_map(|item| [item.split_to(100), item.split_to(item.len())]).collect();
        assert_eq!(parts.concat(), sent);
    }
}
