//! The session: streams over records, with flow control, fairness and acknowledgements. See the crate for the order
//! of calls; `open`, `write`, `read`, `finish`, `release` are the application's side.
//!
//! Messages are kept until the peer acknowledges them, and nothing here knows what carries the frames: a transport
//! that is lost can be replaced without the streams noticing (docs/protocol.md, "Resume").
//!
//! Over 500 lines because the books of all streams and of the session are one struct, and its public calls stand beside it.

mod counts;
mod places;
mod receive;
mod release;
mod transmit;
mod transport;
mod types;

use counts::{More, Places};
use types::Owed;
pub use types::{Audit, Config, Event, OpenError, ReadState, SessionError, Write};

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use mykube_protocol::{
    Role,
    channel::{self, Control, STREAM_NARROW, StreamId, Upkeep, Welcome},
    limits::{self, SESSION_WINDOW},
};
use zeroize::Zeroizing;

use crate::{
    flow::{GrowthPool, SessionWindow},
    handshake::Established,
    message::HEAD,
    pace::{self, Pace, Stamp},
    record::{Opener, Sealer},
    resume::Resume,
    schedule::Scheduler,
    stream::{Ending, Item, Stream},
    time::Time,
};

/// Payload a stream takes from the application before it must wait; less where many streams share what all may take, and
/// less again than the least where there are more than 256. What is given beyond it is taken as well: one read of whoever
/// writes, and what waited before others came stays (docs/protocol.md, "Limits").
const SEND_QUEUE: usize = 512 * 1024;
const SEND_QUEUE_MIN: usize = 32 * 1024;
const SEND_QUEUES: usize = 2 * 1024 * 1024;
/// A target, so that its `new:{id}:` stays below 4 KiB. Nothing that long is on an allow-list.
const TARGET_MAX: usize = 4000;
/// While something is under way, the round trip is measured this often.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A transport's first ping is answered beside an attach, a welcome or TCP's own beginning, so others follow it.
const PINGS_FIRST: u32 = 4;

/// Part of a welcome, which may hold credentials: wiped when it is dropped.
type WelcomePart = Zeroizing<Vec<u8>>;

/// A message that was sent and is kept until it is acknowledged.
enum Kept {
    Control(Control),
    Data(Stamp, StreamId, Bytes),
    Welcome(bool, WelcomePart),
}

/// It counts for what it takes, with the smallest allocation beside it.
const _: () = assert!(size_of::<Kept>() as u64 + 32 <= pace::MESSAGE);

impl Kept {
    /// Bytes of stream data.
    fn payload(&self) -> u64 {
        match self {
            Self::Data(.., payload) => payload.len() as u64,
            Self::Control(_) | Self::Welcome(..) => 0,
        }
    }
}

/// One end of the channel after the handshake.
#[allow(clippy::struct_excessive_bools, reason = "each says how far one thing has come, and none excludes another")]
pub struct Session {
    role: Role,
    config: Config,
    sealer: Sealer,
    opener: Opener,
    resume: Resume,
    /// The keys of `sealer` and `opener` serve a transport that is not known to be gone.
    attached: bool,
    /// Attach frames and first records, sent before anything else.
    attach_out: VecDeque<BytesMut>,
    /// The client asks again then.
    ask_due: Option<Time>,
    /// Consecutive records that did not open.
    bad_records: u32,
    /// Since when the peer owes this end a word, what may be owed, and whether it was asked for.
    owed: Option<Owed>,
    events: VecDeque<Event>,
    over: bool,
    peer_over: bool,
    /// The number of this end's farewell.
    bye_m: Option<u64>,

    streams: HashMap<StreamId, Stream>,
    ours: Places,
    theirs: Places,
    more: More,
    next_id: StreamId,
    peer_last_id: StreamId,
    agent_opens: (Time, u32),
    /// When streams are looked at that were let go of, and of which something waits.
    untaken_due: Option<Time>,
    scheduler: Scheduler,
    pace: Pace,

    control: VecDeque<Control>,
    /// Credit that the peer is told of with the next record, and after `credit_due` in one of its own.
    credit: Vec<(StreamId, u64)>,
    credit_due: Option<Time>,
    /// Bytes of `control` and `credit`.
    waiting_control: usize,
    welcome_out: VecDeque<(bool, WelcomePart)>,
    /// A part of the first welcome in it was sent.
    welcome_begun: bool,
    upkeep: VecDeque<Upkeep>,
    send_credit: u64,
    kept: VecDeque<Kept>,
    /// How many at the end of `kept` are yet to be sent again, under the present keys.
    unsent: usize,
    /// Bytes of `kept` that are control or of a welcome.
    kept_control: usize,
    next_m: u64,
    acked_m: u64,

    window: SessionWindow,
    growth: GrowthPool,
    received_m: u64,
    told_m: u64,
    untold_bytes: u64,
    /// So many of them are worth an acknowledgement.
    ack_step: u64,
    /// When an acknowledgement, or credit, last left.
    told_at: Time,
    ack_due: Option<Time>,
    welcome_in: WelcomePart,

    ping: Option<(u64, Time)>,
    ping_due: Option<Time>,
    pong: Option<u64>,
    pings: u64,
    /// So many more measure a new transport, one after another, while each finds it quicker than the last.
    pings_first: u32,
    heard_since_probe: u64,
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
        let growth = config.growth.min(Config::default().growth);
        Self {
            role,
            config,
            sealer,
            opener,
            resume,
            attached: true,
            attach_out: VecDeque::new(),
            ask_due: None,
            bad_records: 0,
            owed: None,
            events: VecDeque::new(),
            over: false,
            peer_over: false,
            bye_m: None,
            streams: HashMap::new(),
            ours: Places::default(),
            theirs: Places::default(),
            more: More::Unasked,
            next_id: if role == Role::Client { 1 } else { 2 },
            peer_last_id: 0,
            agent_opens: (now, 0),
            untaken_due: None,
            scheduler: Scheduler::default(),
            pace: Pace::new(now),
            control: VecDeque::new(),
            credit: Vec::new(),
            credit_due: None,
            waiting_control: 0,
            welcome_out: VecDeque::new(),
            welcome_begun: false,
            upkeep: VecDeque::new(),
            send_credit: SESSION_WINDOW,
            kept: VecDeque::new(),
            unsent: 0,
            kept_control: 0,
            next_m: 0,
            acked_m: 0,
            window: SessionWindow::new(),
            growth: GrowthPool::new(growth),
            received_m: 0,
            told_m: 0,
            untold_bytes: 0,
            ack_step: limits::ACK_BYTES,
            told_at: now,
            ack_due: None,
            welcome_in: WelcomePart::default(),
            ping: None,
            ping_due: Some(now),
            pong: None,
            pings: 0,
            pings_first: PINGS_FIRST,
            heard_since_probe: 0,
        }
    }

    /// Opens a stream to the API server, or to a target the agent allows (4,000 bytes of it). Bytes may follow at once.
    ///
    /// # Errors
    /// As many streams are open as there may be (256, or 1,024 where the agent keeps so many), or the session is over.
    pub fn open(&mut self, now: Time, target: Option<String>) -> Result<StreamId, OpenError> {
        if self.over {
            return Err(OpenError::Closed);
        }
        let narrow = self.place(now)?;
        // Nobody has asked for a target and for a narrow stream to it.
        if narrow && target.is_some() {
            return Err(OpenError::TooMany);
        }
        let id = self.next_id()?;
        let target = if narrow { Some(STREAM_NARROW.to_owned()) } else { target };
        let mut stream = Stream::new(narrow);
        stream.outbox.push_back(Item::New(target.map(|target| cut(target, TARGET_MAX))));
        self.keep_stream(id, stream);
        self.activate(now, id, false);
        Ok(id)
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
    /// It is longer than 256 KiB.
    pub fn welcome(&mut self, welcome: &Welcome) -> Result<(), SessionError> {
        // With room for the longest, so that it is nowhere else when it is wiped.
        let mut json = Zeroizing::new(Vec::with_capacity(limits::WELCOME_MAX));
        serde_json::to_writer(&mut *json, welcome)
            .map_err(|_| SessionError::Misbehaved("a welcome that is no JSON"))?;
        if json.len() > limits::WELCOME_MAX {
            return Err(SessionError::Misbehaved(
                "this end's welcome is longer than 256 KiB: is the CA bundle that large?",
            ));
        }
        let begun = self.welcome_out.iter().position(|(last, _)| *last).filter(|_| self.welcome_begun);
        self.welcome_out.truncate(begun.map_or(0, |last| last + 1));
        let part = limits::RECORD_PLAINTEXT_MAX - 256;
        let parts = json.chunks(part).len();
        for (i, part) in json.chunks(part).enumerate() {
            self.welcome_out.push_back((i + 1 == parts, Zeroizing::new(part.to_vec())));
        }
        Ok(())
    }

    /// Ends the session in this end's own words. Nothing is sent after it.
    pub fn bye(&mut self, reason: &str) {
        if !self.over {
            self.over = true;
            self.say(Control::Bye { reason: channel::reason(reason) });
        }
    }

    /// What happened, for the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if !self.attached {
            return self.ask_due;
        }
        let ping = self.ping_due.filter(|_| self.ping.is_none());
        // What is sent again goes first.
        let credit = self.credit_due.filter(|_| self.unsent == 0);
        [self.ack_due, credit, ping, self.silence_due(), self.pace_due(), self.untaken_due].into_iter().flatten().min()
    }

    /// A timer ran out.
    pub fn handle_timeout(&mut self, now: Time) {
        self.notice_silence(now);
        self.give_up_untaken(now);
        if self.ping_is_due(now) {
            self.send_ping(now);
        }
    }

    fn ping_is_due(&self, now: Time) -> bool {
        self.attached && self.ping.is_none() && self.ping_due.is_some_and(|due| due <= now)
    }

    /// The newest ping is the one that counts.
    fn send_ping(&mut self, now: Time) {
        self.ping_due = None;
        self.pings += 1;
        self.ping = Some((self.pings, now));
        self.upkeep.retain(|upkeep| !matches!(upkeep, Upkeep::Ping(_)));
        self.upkeep.push_back(Upkeep::Ping(self.pings));
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
        self.over && (self.peer_over || self.bye_m.is_some_and(|m| self.acked_m > m))
    }

    /// Streams that are open, or not closed by both ends yet.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Payload sent and not acknowledged, in messages: what a resume would send again.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.kept.len()
    }

    /// The session's books, for tests: with no stream open they are what they were at the start.
    #[doc(hidden)]
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit {
            session_allowance: self.window.outstanding(),
            session_credit: self.send_credit,
            growth_left: self.growth.left(),
            kept: self.kept.len(),
            kept_bytes: self.kept.iter().map(Kept::payload).sum(),
            queued: self.streams.values().map(|stream| stream.queued).sum(),
            control: self.waiting_control + self.kept_control,
            under_way: self.pace.in_flight(),
            cap: self.pace.cap(),
            min_rtt: self.pace.best_rtt(),
            rate: self.pace.best_rate(),
        }
    }

    /// The smoothed round-trip time between the two ends.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.pace.rtt()
    }

    /// Which end this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Payload that each of the streams may have waiting.
    #[must_use]
    pub fn share(&self) -> usize {
        let streams = self.streams.len().max(1);
        let least = SEND_QUEUE_MIN.min(SEND_QUEUE_MIN * limits::STREAMS_MAX / streams);
        (SEND_QUEUES / streams).clamp(least, SEND_QUEUE)
    }

    fn activate(&mut self, now: Time, id: StreamId, backlogged: bool) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.is_ready(self.send_credit)
        {
            self.scheduler.activate(now, id, &mut stream.turn, self.pace.rtt(), backlogged);
        }
    }

    /// Payload left this end's memory: both windows move on.
    fn consumed(&mut self, now: Time, id: StreamId, bytes: u64) {
        if bytes == 0 {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            // What is dropped is no quick reader's.
            let rtt = self.pace.rtt().filter(|_| !stream.released);
            let credit = stream.window.consume(now, bytes, rtt, &mut self.growth);
            if let Some((n, grown)) = credit.filter(|_| stream.wants_more()) {
                self.credit(now, id, n, grown);
            }
        }
        self.consumed_session(now, bytes);
    }

    fn consumed_session(&mut self, now: Time, bytes: u64) {
        if let Some(n) = self.window.consume(bytes) {
            self.credit(now, 0, n, false);
        }
    }

    /// The next acknowledgement, or credit, leaves by itself then at the earliest.
    fn tells_next(&self) -> Time {
        self.told_at + self.pace.ack_interval()
    }

    /// Credit is told as rarely as acknowledgements are, and with them, but a larger window at once: a sender that finds out what
    /// the line takes waits for it.
    fn credit(&mut self, now: Time, id: StreamId, n: u64, grown: bool) {
        if self.over {
            return;
        }
        if let Some((_, waits)) = self.credit.iter_mut().find(|(other, _)| *other == id) {
            *waits += n;
        } else {
            self.waiting_control += control_len(&Control::Credit { id, n });
            self.credit.push((id, n));
        }
        let due = if grown { now } else { now.max(self.tells_next()) };
        self.credit_due = Some(self.credit_due.map_or(due, |before| before.min(due)));
    }

    /// Queues a control message that keeps no order with a stream's.
    fn say(&mut self, control: Control) {
        self.waiting_control += control_len(&control);
        self.control.push_back(control);
    }

    /// Whether this end opened it, or would.
    fn is_ours(&self, id: StreamId) -> bool {
        (id % 2 == 1) == (self.role == Role::Client)
    }

    fn forget_if_over(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(Stream::is_over)
            && let Some(mut stream) = self.streams.remove(&id)
        {
            self.free_place(id, stream.narrow);
            self.scheduler.remove(id, &mut stream.turn);
            stream.window.retire(&mut self.growth);
            self.events.push_back(Event::Closed(id));
        }
    }
}

/// At most `max` bytes of a text.
fn cut(mut text: String, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// Length of a control message, or a little more.
fn control_len(control: &Control) -> usize {
    let text = match control {
        Control::New { target, .. } => target.as_ref().map_or(0, String::len),
        Control::Done { reason, .. } => reason.as_ref().map_or(0, String::len),
        Control::Bye { reason } => reason.len(),
        Control::Credit { .. } => "18446744073709551615".len(),
        Control::Eof { .. } => 0,
    };
    HEAD + "credit:4294967295:".len() + text
}

impl Stream {
    fn takes_data(&self) -> bool {
        !self.eof_sent && !self.done_queued && !self.released && self.done_received.is_none()
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    #[test]
    fn credentials_that_wait_or_are_kept_are_wiped() {
        fn wiped<T: ZeroizeOnDrop>(_: &T) {}
        let established = crate::seam::established(Role::Client, [1; 32], [2; 32]);
        let session = Session::new(Time::default(), established, Config::default());
        wiped(&session.welcome_in);
        session.welcome_out.iter().for_each(|(_, part)| wiped(part));
        let kept = |kept: &Kept| {
            if let Kept::Welcome(_, part) = kept {
                wiped(part);
            }
        };
        kept(&Kept::Welcome(true, WelcomePart::default()));
    }

    #[test]
    fn credentials_that_come_in_parts_are_never_moved() {
        let established = crate::seam::established(Role::Client, [1; 32], [2; 32]);
        let mut session = Session::new(Time::default(), established, Config::default());
        let mut sealer = Sealer::from_secret([2; 32]);
        for _ in 0..20 {
            let mut frame = BytesMut::new();
            crate::message::start_record(&mut frame);
            crate::message::put_welcome(&mut frame, false, &[b' '; 10_000]);
            sealer.seal(&mut frame);
            session.handle_frame(Time::default(), frame).unwrap();
            assert_eq!(session.welcome_in.capacity(), limits::WELCOME_MAX);
        }
    }
}
