//! The session: streams over records, with flow control, fairness and acknowledgements. See the crate for the order
//! of calls; `open`, `write`, `read`, `finish`, `release` are the application's side.
//!
//! Messages are kept until the peer acknowledges them, and nothing here knows what carries the frames: a transport
//! that is lost can be replaced without the streams noticing (docs/protocol.md, "Resume").
//!
//! What belongs together is a struct of its own, which knows none of the others and is tested by itself:
//!
//! | | |
//! | --- | --- |
//! | `attachment`, `liveness` | whether a transport serves the session's keys, and whether the peer still answers on it |
//! | `slots` | how many streams there are |
//! | `control_queue`, `welcome` | what waits to be sent beside the streams |
//! | `unacked` | what was sent, until the peer has it |
//! | `acks`, `credit` | what the peer is told of what it has sent |
//! | `pings` | round trips |
//! | `farewell` | the end |
//!
//! `opening`, `transmit`, `receive`, `release` and `transport` are the session's own methods, by what they are for.

mod acks;
mod attachment;
mod control_queue;
mod credit;
mod farewell;
mod liveness;
mod opening;
mod pings;
mod receive;
mod release;
mod slots;
mod transmit;
mod transport;
mod types;
mod unacked;
mod welcome;

pub use types::{Audit, Config, Event, OpenError, ReadState, SessionError, Write};

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use mykube_protocol::{
    Role,
    channel::{self, Control, StreamId, Welcome},
    limits::{self, SESSION_WINDOW},
};

use crate::{
    congestion::Congestion,
    handshake::Established,
    record::{Opener, Sealer},
    resume::Resume,
    schedule::Scheduler,
    stream::{Ending, Item, Stream},
    time::Time,
};
use acks::Acks;
use attachment::Attachment;
use control_queue::ControlQueue;
use credit::CreditPolicy;
use farewell::Farewell;
use liveness::Liveness;
use pings::Pings;
use slots::Slots;
use unacked::Unacked;
use welcome::{WelcomeIn, WelcomeOut};

/// Payload a stream takes from the application before it must wait; less where many streams share what all may take, and
/// less again than the least where there are more than 256. What is given beyond it is taken as well: it is one read of
/// the task that writes, and what waited before other streams came stays (docs/protocol.md, "Limits").
const SEND_QUEUE: usize = 512 * 1024;
const SEND_QUEUE_MIN: usize = 32 * 1024;
const SEND_QUEUES: usize = 2 * 1024 * 1024;

/// One end of the channel after the handshake.
pub struct Session {
    role: Role,
    config: Config,

    sealer: Sealer,
    opener: Opener,
    resume: Resume,
    attachment: Attachment,
    liveness: Liveness,
    pings: Pings,

    streams: HashMap<StreamId, Stream>,
    slots: Slots,
    scheduler: Scheduler,
    congestion: Congestion,
    /// When the session next looks whether the peer takes what waits of streams that the application has released.
    untaken_due: Option<Time>,

    control: ControlQueue,
    welcome_out: WelcomeOut,
    /// What the peer lets all streams send.
    send_credit: u64,
    unacked: Unacked,

    credit: CreditPolicy,
    acks: Acks,
    welcome_in: WelcomeIn,

    events: VecDeque<Event>,
    farewell: Farewell,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, {} streams)", self.role, self.streams.len())
    }
}

impl Session {
    /// A session on the keys of a handshake.
    #[must_use]
    pub fn new(now: Time, established: Established, config: Config) -> Self {
        let Established { role, mut sealer, opener, resume, .. } = established;
        sealer.set_limits(config.rekey_records, config.rekey_bytes);
        Self {
            role,
            config,
            sealer,
            opener,
            resume,
            attachment: Attachment::new(),
            liveness: Liveness::default(),
            pings: Pings::new(now),
            streams: HashMap::new(),
            slots: Slots::new(now, role),
            scheduler: Scheduler::default(),
            congestion: Congestion::new(now),
            untaken_due: None,
            control: ControlQueue::default(),
            welcome_out: WelcomeOut::default(),
            send_credit: SESSION_WINDOW,
            unacked: Unacked::default(),
            credit: CreditPolicy::new(config.growth.min(Config::default().growth)),
            acks: Acks::new(now),
            welcome_in: WelcomeIn::default(),
            events: VecDeque::new(),
            farewell: Farewell::default(),
        }
    }

    /// Hands payload to a stream. Everything given is taken; when it answers `full`, wait before giving more.
    pub fn write(&mut self, now: Time, id: StreamId, payload: Bytes) -> Write {
        let most = self.share();
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.takes_data()) else { return Write::Over };
        if !payload.is_empty() {
            stream.push_outbox(payload);
        }
        let full = stream.queued >= most;
        stream.write_waits = full;
        self.activate(now, id, false);
        Write::Taken { full }
    }

    /// No more bytes this way (half-close), after all that was written.
    pub fn finish(&mut self, now: Time, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|s| s.takes_data()) {
            stream.eof_sent = true;
            stream.outbox.push_back(Item::Eof);
            self.activate(now, id, false);
        }
    }

    /// Takes received chunks, up to about `max` bytes (one chunk at least, if there is any), and tells how the stream
    /// stands after them. What the read before gave counts as consumed from here on.
    pub fn read(&mut self, now: Time, id: StreamId, max: u64, chunks: &mut Vec<Bytes>) -> ReadState {
        let Some(stream) = self.streams.get_mut(&id) else { return ReadState::Failed("the stream is closed".into()) };
        let mut taken = 0;
        while taken < max.max(1) {
            let Some(chunk) = stream.pop_inbox() else { break };
            taken += chunk.len() as u64;
            chunks.push(chunk);
        }
        let consumed = std::mem::replace(&mut stream.in_hand, taken);
        let failed = match &stream.done_received {
            Some(Ending::Failed(reason)) => Some(reason.clone()),
            _ => None,
        };
        let state = match failed {
            _ if stream.unread > 0 => ReadState::Open,
            // A direction that the peer has ended is whole, whatever became of the other one after that.
            _ if stream.eof_received => ReadState::Eof,
            Some(reason) => ReadState::Failed(reason),
            None => {
                stream.read_waits = true;
                ReadState::Open
            }
        };
        self.consumed(now, id, consumed);
        state
    }

    /// Sends the agent's word on the cluster. Later ones replace the credentials, and those of which nothing was sent yet.
    ///
    /// # Errors
    /// The welcome is longer than 256 KiB.
    pub fn welcome(&mut self, welcome: &Welcome) -> Result<(), SessionError> {
        self.welcome_out.push(welcome)
    }

    /// Ends the session in this end's own words. Nothing is sent after it.
    pub fn bye(&mut self, reason: &str) {
        if self.farewell.begin() {
            self.control.push(Control::Bye { reason: channel::reason(reason) });
        }
    }

    /// What happened, for the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if !self.is_attached() {
            return self.attachment.ask_due();
        }
        // Messages that are sent again go first.
        let credit = self.credit.due().filter(|_| !self.unacked.is_resending());
        let liveness = self.liveness.due(self.waits());
        [self.acks.due(), credit, self.pings.due(), liveness, self.pace_due(), self.untaken_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// A timer ran out.
    pub fn handle_timeout(&mut self, now: Time) {
        self.check_liveness(now);
        self.give_up_untaken(now);
        if self.ping_is_due(now) {
            self.pings.send(now);
        }
    }

    fn ping_is_due(&self, now: Time) -> bool {
        self.is_attached() && self.pings.is_due(now)
    }

    /// Whether [`Session::poll_transmit`] would give something.
    #[must_use]
    pub fn wants_transmit(&self, now: Time) -> bool {
        self.has_something(now)
    }

    /// Whether a stream takes no more at the moment; [`Event::Writable`] tells when it does again.
    #[must_use]
    pub fn is_full(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.write_waits)
    }

    /// Why a stream failed before what comes on it was whole, if it did, in the peer's words.
    #[must_use]
    pub fn failure(&self, id: StreamId) -> Option<&str> {
        let stream = self.streams.get(&id)?;
        match stream.done_received.as_ref()? {
            Ending::Failed(reason) if !stream.eof_received => Some(reason),
            Ending::Failed(_) | Ending::Clean => None,
        }
    }

    /// Whether one of the ends has said `bye`, and the other has heard it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.farewell.is_complete(|m| self.unacked.is_acked(m))
    }

    /// Streams that are open, or not closed by both ends yet.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Payload sent and not acknowledged, in messages: what a resume would send again.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.unacked.len()
    }

    /// The session's books, for tests: with no stream open they are what they were at the start.
    #[doc(hidden)]
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit {
            session_allowance: self.credit.outstanding(),
            session_credit: self.send_credit,
            growth_left: self.credit.growth_left(),
            kept: self.unacked.len(),
            kept_bytes: self.unacked.payload(),
            queued: self.streams.values().map(|stream| stream.queued).sum(),
            control: self.control_bytes(),
            under_way: self.congestion.in_flight(),
            cap: self.congestion.cap(),
            min_rtt: self.congestion.best_rtt(),
            rate: self.congestion.best_rate(),
        }
    }

    /// The smoothed round-trip time between the two ends.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.congestion.rtt()
    }

    /// Which end this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Payload that each of the streams may have waiting.
    #[must_use]
    pub fn share(&self) -> usize {
        share(self.streams.len().max(1))
    }

    fn activate(&mut self, now: Time, id: StreamId, backlogged: bool) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.is_ready(self.send_credit)
        {
            self.scheduler.activate(now, id, &mut stream.turn, self.congestion.rtt(), backlogged);
        }
    }

    /// Payload left this end's memory: both windows move on.
    fn consumed(&mut self, now: Time, id: StreamId, bytes: u64) {
        if bytes == 0 {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            // Bytes that are dropped show no quick reader.
            let rtt = self.congestion.rtt().filter(|_| !stream.released);
            let credit = self.credit.consume_of(now, &mut stream.window, bytes, rtt);
            if let Some((n, grown)) = credit.filter(|_| stream.wants_more()) {
                self.tell_credit(now, id, n, grown);
            }
        }
        self.consumed_session(now, bytes);
    }

    fn consumed_session(&mut self, now: Time, bytes: u64) {
        if let Some(n) = self.credit.consume(bytes) {
            self.tell_credit(now, 0, n, false);
        }
    }

    /// Credit is told as rarely as acknowledgements are, and with them, but a larger window at once: a sender that finds out what
    /// the line takes waits for it.
    fn tell_credit(&mut self, now: Time, id: StreamId, n: u64, grown: bool) {
        if !self.farewell.is_over() {
            let due = if grown { now } else { now.max(self.acks.earliest(&self.congestion)) };
            self.credit.tell(id, n, due);
        }
    }

    fn forget_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(Stream::is_over)
            && let Some(mut stream) = self.streams.remove(&id)
        {
            self.slots.free(id, stream.narrow);
            self.scheduler.remove(id, &mut stream.turn);
            self.credit.retire(&mut stream.window);
            self.events.push_back(Event::Closed(id));
        }
    }
}

impl Stream {
    fn takes_data(&self) -> bool {
        !self.eof_sent && !self.done_queued && !self.released && self.done_received.is_none()
    }
}

/// Payload that each of so many streams may have waiting.
fn share(streams: usize) -> usize {
    let least = SEND_QUEUE_MIN.min(SEND_QUEUE_MIN * limits::STREAMS_MAX / streams);
    (SEND_QUEUES / streams).clamp(least, SEND_QUEUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_what_all_may_have_waiting() {
        assert_eq!([1, 4, 8, 64, 256, 512, 1024].map(|streams| share(streams) / 1024), [512, 512, 256, 32, 32, 16, 8]);
    }
}
