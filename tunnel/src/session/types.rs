//! What the application sees of a session: settings, events, answers, errors.

use std::time::Duration;

use mykube_protocol::{
    channel::{StreamId, Welcome},
    limits,
};

use crate::record::RecordError;

/// Settings of a session; the defaults are the protocol's.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Records under one key. At most 2^24.
    pub rekey_records: u64,
    /// Bytes under one key. At most 64 GiB.
    pub rekey_bytes: u64,
    /// Growth of stream windows beyond their first 256 KiB, all streams together: this session's part of the
    /// process's budget. At most [`limits::GROWTH_MAX`].
    pub growth: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { rekey_records: limits::REKEY_RECORDS, rekey_bytes: limits::REKEY_BYTES, growth: limits::GROWTH_MAX }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Ends the transport; the session may go on over another one.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The peer broke the protocol. Ends the session.
    #[error("the other end broke the protocol: {0}; use the same release of mykube on both ends")]
    Misbehaved(&'static str),
    /// Five records in a row were not the peer's. Ends the session.
    #[error(
        "{} records in a row did not open: the connection is being tampered with, or the ends' releases differ",
        limits::BAD_RECORDS_MAX
    )]
    Forged,
    /// This end's control messages are never acknowledged.
    #[error("the other end acknowledges nothing: more than 1 MiB of control messages is waiting")]
    Unacknowledged,
}

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// As many at once as the agent keeps, 256 or 1,024; one must end first.
    #[error("all streams of the session are in use")]
    TooMany,
    /// The session is over, or its numbers are used up.
    #[error("the session takes no more streams")]
    Closed,
}

/// What the application hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream.
    Opened {
        /// Its number.
        id: StreamId,
        /// Where to, if not the API server.
        target: Option<String>,
    },
    /// A stream that had nothing to read now has.
    Readable(StreamId),
    /// A stream that took no more now does.
    Writable(StreamId),
    /// A stream is forgotten; another may be opened.
    Closed(StreamId),
    /// The agent's word on the cluster and its credentials.
    Welcome(Box<Welcome>),
    /// The peer ended the session.
    Bye(String),
    /// The peer has owed a word for too long: the transport is dead, and the session waits for another.
    Silent,
    /// The session goes on over another transport; nothing was lost.
    Back,
}

/// What [`crate::Session::read`] finds after the chunks it gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadState {
    /// There may be more; [`Event::Readable`] tells when, if nothing was given.
    Open,
    /// The peer has ended this direction, in its own words.
    Eof,
    /// The stream failed.
    Failed(String),
}

/// What [`crate::Session::write`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Taken. `full` says to wait for [`Event::Writable`] before the next.
    Taken {
        /// No room for more.
        full: bool,
    },
    /// The stream is over; the bytes are dropped.
    Over,
}

/// See [`Session::audit`].
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "for tests")]
pub struct Audit {
    /// What the peer may still send, and what was consumed and is not yet told to it.
    pub session_allowance: u64,
    pub session_credit: u64,
    pub growth_left: u64,
    pub kept: usize,
    /// Payload of stream data in what is kept.
    pub kept_bytes: u64,
    pub queued: usize,
    pub control: usize,
    /// Payload not acknowledged, and how much of it bulk may have under way.
    pub under_way: u64,
    pub cap: u64,
    pub min_rtt: Option<Duration>,
    pub rate: Option<u64>,
}
