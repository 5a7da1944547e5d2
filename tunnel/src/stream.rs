//! One stream's two queues and where it stands between `new` and `done`.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use mykube_protocol::limits::{NARROW_WINDOW, STREAM_WINDOW, STREAM_WINDOW_MAX};

use crate::{flow::RecvWindow, schedule::Turn};

/// Payloads up to this length are copied together, so that they do not each keep a whole record in memory.
const SMALL: usize = 2 * 1024;

/// What waits to be sent, in its order.
#[derive(Debug)]
pub(crate) enum Item {
    New(Option<String>),
    Data(Bytes),
    Eof,
    Done(Option<String>),
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
    pub(crate) window: RecvWindow,
    inbox: VecDeque<Bytes>,
    tail: BytesMut,
    pub(crate) unread: u64,
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
            window: RecvWindow::new(first, STREAM_WINDOW_MAX),
            inbox: VecDeque::new(),
            tail: BytesMut::new(),
            unread: 0,
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
            Some(Item::Data(_)) => self.credit > 0 && session_credit > 0,
            Some(_) => true,
            None => false,
        }
    }

    pub(crate) fn push_inbox(&mut self, payload: Bytes) {
        self.unread += payload.len() as u64;
        if payload.len() <= SMALL {
            self.tail.extend_from_slice(&payload);
        } else {
            if !self.tail.is_empty() {
                self.inbox.push_back(self.tail.split().freeze());
            }
            self.inbox.push_back(payload);
        }
    }

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

    /// Drops what was not read yet and says how much.
    pub(crate) fn clear_inbox(&mut self) -> u64 {
        self.inbox.clear();
        self.tail = BytesMut::new();
        std::mem::take(&mut self.unread)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.released && self.done_sent && self.done_received.is_some()
    }
}
