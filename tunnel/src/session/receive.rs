//! What the peer says. Nothing of it is trusted with this end's memory.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use mykube_protocol::{
    Role,
    channel::{Control, STREAM_NARROW, STREAMS_ASK, StreamId, Upkeep, Welcome},
    limits::{AGENT_OPENS_PER_SECOND, IDLE_PING, WELCOME_MAX},
};
use zeroize::Zeroize as _;

use super::{
    SentMessage, Session, control_len,
    types::{Event, SessionError, SessionError::Misbehaved},
};
use crate::{
    congestion::Stamp,
    message::{self, Message},
    stream::{Ending, Stream},
    time::Time,
};

/// No honest peer gives more credit than this at once or in sum.
const CREDIT_MAX: u64 = 1 << 40;
/// Messages there is room for without asking for memory again: what is under way on most lines.
const KEPT_ROOM: usize = 1024;

impl Session {
    /// A binary frame arrived. Nothing of it is kept: what it says is opened into a buffer of its own.
    ///
    /// # Errors
    /// [`SessionError::Record`] ends the transport, everything else the session.
    pub fn handle_frame(&mut self, now: Time, frame: impl AsRef<[u8]>) -> Result<(), SessionError> {
        let frame = frame.as_ref();
        if self.handle_first(now, frame)? || !self.attached {
            return Ok(());
        }
        let Ok(plaintext) = self.opener.open_apart(frame) else { return Err(self.count_bad()) };
        self.heard();
        let plaintext = plaintext.freeze();
        let (mut welcomes, dry) = (false, self.send_credit == 0);
        let handled = self.handle_messages(now, &plaintext, &mut welcomes);
        if welcomes && let Ok(mut credentials) = plaintext.try_into_mut() {
            credentials.zeroize();
        }
        handled?;
        // Whoever waits for the session's credit is looked at once a record, however often it comes in one.
        if dry && self.send_credit > 0 {
            self.activate_all(now);
        }
        self.reckon_debt(now);
        Ok(())
    }

    /// `welcomes`: whether a part of a welcome is among them.
    fn handle_messages(&mut self, now: Time, plaintext: &Bytes, welcomes: &mut bool) -> Result<(), SessionError> {
        let mut rekeyed = false;
        for message in message::parse(plaintext) {
            if rekeyed {
                return Err(Misbehaved("a message after rekey"));
            }
            match message.map_err(|_| Misbehaved("a record that is not a sequence of messages"))? {
                // After its farewell the peer has no more to say that matters.
                Message::Control(_) | Message::Data(..) | Message::Welcome(..) if self.peer_over => {
                    self.numbered(now, 0);
                }
                Message::Handshake(_) => return Err(Misbehaved("a handshake message in a running session")),
                Message::Upkeep(Upkeep::Rekey) => rekeyed = true,
                Message::Upkeep(upkeep) => self.handle_upkeep(now, upkeep)?,
                Message::Control(control) => {
                    self.numbered(now, 0);
                    self.handle_control(now, control)?;
                }
                Message::Data(id, range) => {
                    self.numbered(now, range.len() as u64);
                    self.handle_data(now, id, plaintext, range)?;
                }
                Message::Welcome(last, part) => {
                    *welcomes = true;
                    self.numbered(now, part.len() as u64);
                    self.handle_welcome(last, part)?;
                }
            }
        }
        if rekeyed {
            self.opener.rekey();
        }
        Ok(())
    }

    fn numbered(&mut self, now: Time, bytes: u64) {
        self.received_m += 1;
        self.untold_bytes += bytes;
        let due = self.ack_due.unwrap_or_else(|| now + self.congestion.ack_delay());
        let enough = self.untold_bytes >= self.ack_step;
        self.ack_due = Some(if enough { due.min(self.tells_next()) } else { due });
    }

    fn handle_upkeep(&mut self, now: Time, upkeep: Upkeep) -> Result<(), SessionError> {
        match upkeep {
            Upkeep::Ack(m) => self.handle_ack(now, m)?,
            // Only the newest is answered: a flood of pings costs its sender more than us.
            Upkeep::Ping(n) => {
                self.pong = Some(n);
                self.congestion.handle_peer_ping(now);
            }
            Upkeep::Pong(n) => {
                if let Some((_, sent)) = self.ping.take_if(|(expected, _)| *expected == n) {
                    let (before, rtt) = (self.congestion.best_rtt(), now.since(sent).max(Duration::from_micros(1)));
                    self.congestion.handle_rtt(now, rtt);
                    let settles = before.is_none_or(|best| rtt + best / 8 < best);
                    self.pings_first = if settles { self.pings_first.saturating_sub(1) } else { 0 };
                    if self.pings_first > 0 {
                        self.ping_due = Some(now);
                    } else {
                        self.ping_due.get_or_insert(now + IDLE_PING);
                    }
                }
            }
            Upkeep::Rekey => {}
        }
        Ok(())
    }

    fn handle_ack(&mut self, now: Time, m: u64) -> Result<(), SessionError> {
        if m > self.next_m - self.unsent as u64 {
            return Err(Misbehaved("an acknowledgement of what was never sent"));
        }
        let mut newest = None;
        while self.acked_m < m {
            if let Some((len, stamp)) = self.forget_oldest() {
                self.congestion.handle_acked(now, len, &stamp);
                newest = Some(stamp);
            }
        }
        if let Some(stamp) = newest {
            self.congestion.sample(now, &stamp);
        }
        // A queue keeps its room, which many small messages at once may have made large.
        if self.kept.is_empty() {
            self.kept.shrink_to(KEPT_ROOM);
        }
        Ok(())
    }

    /// The peer has the oldest message that is kept. What is known of it, if it was data.
    pub(super) fn forget_oldest(&mut self) -> Option<(u64, Stamp)> {
        self.acked_m += 1;
        match self.kept.pop_front()? {
            SentMessage::Control(control) => {
                self.kept_control -= control_len(&control);
                None
            }
            SentMessage::Data(stamp, _, payload) => Some((payload.len() as u64, stamp)),
            SentMessage::Welcome(_, part) => {
                self.kept_control -= part.len();
                None
            }
        }
    }

    fn handle_control(&mut self, now: Time, control: Control) -> Result<(), SessionError> {
        match control {
            Control::New { id, target } => self.handle_new(now, id, target),
            Control::Credit { id: 0, n } => {
                self.send_credit = add_credit(self.send_credit, n)?;
                Ok(())
            }
            Control::Credit { id, n } => {
                if let Some(stream) = self.known(id)? {
                    stream.credit = add_credit(stream.credit, n)?;
                    self.activate(now, id, true);
                }
                Ok(())
            }
            Control::Eof { id } => {
                if let Some(stream) = self.known(id)? {
                    if stream.eof_received || stream.done_received.is_some() {
                        return Err(Misbehaved("a second end of one stream"));
                    }
                    stream.eof_received = true;
                    self.wake_reader(id);
                }
                Ok(())
            }
            Control::Done { id, reason } => self.handle_done(now, id, reason),
            Control::Bye { reason } => {
                self.over = true;
                self.peer_over = true;
                // Whoever said it waits for this before it leaves.
                self.ack_due = Some(now);
                self.events.push_back(Event::Bye(reason));
                Ok(())
            }
        }
    }

    fn activate_all(&mut self, now: Time) {
        let mut waiting: Vec<_> = self.streams.keys().copied().collect();
        waiting.sort_unstable();
        for id in waiting {
            self.activate(now, id, true);
        }
    }

    fn handle_new(&mut self, now: Time, id: StreamId, target: Option<String>) -> Result<(), SessionError> {
        if self.is_ours(id) || id <= self.peer_last_id {
            return Err(Misbehaved("a stream number that is not the peer's next"));
        }
        let from_client = self.role == Role::Agent;
        let narrow = from_client && target.as_deref() == Some(STREAM_NARROW);
        // The peer counts its own; only both ends' together may be more without its fault.
        if !self.peer_counts(narrow) {
            return Err(Misbehaved("more streams at once than there may be"));
        }
        self.peer_last_id = id;
        if from_client && target.as_deref() == Some(STREAMS_ASK) {
            self.say(Control::Done { id, reason: None });
            return self.check_control();
        }
        if !self.has_place(narrow) {
            return self.refuse(id, "all streams of the session are in use");
        }
        // Not the agent's fault either, when the line held back what it opened over many seconds.
        if !from_client && !self.agent_may_open(now) {
            return self.refuse(id, "more than 50 streams a second");
        }
        self.keep_stream(id, Stream::new(narrow));
        let target = target.filter(|_| !narrow);
        self.events.push_back(Event::Opened { id, target });
        Ok(())
    }

    fn agent_may_open(&mut self, now: Time) -> bool {
        let (since, opened) = &mut self.agent_opens;
        if now.since(*since) >= Duration::from_secs(1) {
            (*since, *opened) = (now, 0);
        }
        *opened += 1;
        *opened <= AGENT_OPENS_PER_SECOND
    }

    /// Answers a stream that is not taken on; what the peer has sent on it already is dropped.
    fn refuse(&mut self, id: StreamId, reason: &str) -> Result<(), SessionError> {
        self.say(Control::Done { id, reason: Some(reason.to_owned()) });
        self.check_control()
    }

    fn handle_done(&mut self, now: Time, id: StreamId, reason: Option<String>) -> Result<(), SessionError> {
        let Some(stream) = self.known(id)? else { return Ok(()) };
        if stream.done_received.is_some() {
            return Err(Misbehaved("a second done of one stream"));
        }
        // A plain `done` is the peer's word that its direction is complete.
        stream.eof_received |= reason.is_none();
        let ending = reason.map_or(Ending::Clean, Ending::Failed);
        stream.done_received = Some(ending.clone());
        // Nobody reads there any more, and no credit will come for it.
        stream.clear_outbox();
        self.activate(now, id, false);
        self.wake_reader(id);
        if let Some(stream) = self.streams.get_mut(&id)
            && std::mem::take(&mut stream.write_waits)
        {
            self.events.push_back(Event::Writable(id));
        }
        self.answered_for_more(now, id, &ending);
        self.forget_if_over(id);
        Ok(())
    }

    /// Payload: `range` of a record's plaintext.
    fn handle_data(
        &mut self,
        now: Time,
        id: StreamId,
        plaintext: &Bytes,
        range: Range<usize>,
    ) -> Result<(), SessionError> {
        let bytes = range.len() as u64;
        self.window.receive(bytes).map_err(|_| Misbehaved("more data than the session's credit"))?;
        let Some(stream) = self.known(id)? else {
            self.consumed_session(now, bytes);
            return Ok(());
        };
        stream.window.receive(now, bytes).map_err(|_| Misbehaved("more data than the stream's credit"))?;
        if stream.eof_received || stream.done_received.is_some() {
            return Err(Misbehaved("data after the end of a stream"));
        }
        if stream.released {
            self.consumed(now, id, bytes);
        } else {
            stream.push_inbox(plaintext, range);
            self.wake_reader(id);
        }
        self.heard_since_probe += bytes;
        self.measure_later(now);
        Ok(())
    }

    fn handle_welcome(&mut self, last: bool, part: &[u8]) -> Result<(), SessionError> {
        if self.role != Role::Client {
            return Err(Misbehaved("a welcome from a client"));
        }
        if self.welcome_in.len() + part.len() > WELCOME_MAX {
            return Err(Misbehaved("a welcome of more than 256 KiB"));
        }
        // All the room at once: what grows leaves copies behind.
        let room = WELCOME_MAX - self.welcome_in.len();
        self.welcome_in.reserve_exact(room);
        self.welcome_in.extend_from_slice(part);
        if last {
            if !self.welcome_in.starts_with(b"{") {
                return Err(Misbehaved("a welcome that is no object"));
            }
            let welcome = serde_json::from_slice(&self.welcome_in);
            self.tell_welcome(welcome.map_err(|_| Misbehaved("a welcome with unknown fields"))?);
            // The room stays: to have it anew, and to wipe all of it, would cost a thousand times what the shortest of them says.
            self.welcome_in.as_mut_slice().zeroize();
            self.welcome_in.clear();
        }
        Ok(())
    }

    /// Of those that nobody has heard yet the newest is the one that counts.
    fn tell_welcome(&mut self, welcome: Box<Welcome>) {
        let waits = self.events.iter_mut().find(|event| matches!(event, Event::Welcome(_)));
        match waits {
            Some(before) => *before = Event::Welcome(welcome),
            None => self.events.push_back(Event::Welcome(welcome)),
        }
    }

    /// The stream, or nothing if it is closed already.
    fn known(&mut self, id: StreamId) -> Result<Option<&mut Stream>, SessionError> {
        let opened = if self.is_ours(id) { id < self.next_id } else { id <= self.peer_last_id };
        if id == 0 || !opened {
            return Err(Misbehaved("a stream that was never opened"));
        }
        Ok(self.streams.get_mut(&id))
    }

    fn wake_reader(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && std::mem::take(&mut stream.read_waits)
        {
            self.events.push_back(Event::Readable(id));
        }
    }
}

fn add_credit(credit: u64, n: u64) -> Result<u64, SessionError> {
    match credit.checked_add(n) {
        Some(sum) if sum <= CREDIT_MAX && n > 0 => Ok(sum),
        _ => Err(Misbehaved("credit that is zero or overflows")),
    }
}
