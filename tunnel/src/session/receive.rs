//! What the peer says, which is bounded so that it cannot fill this end's memory.

use std::ops::Range;

use bytes::Bytes;
use mykube_protocol::{
    Role,
    channel::{Control, StreamId, Upkeep, Welcome},
};
use zeroize::Zeroize as _;

use super::{
    Session,
    types::{Event, SessionError, SessionError::Misbehaved},
    unacked::NeverSent,
};
use crate::{
    message::{self, Message},
    stream::{Ending, Stream},
    time::Time,
};

/// No honest peer gives more credit than this at once or in sum.
const CREDIT_MAX: u64 = 1 << 40;

impl Session {
    /// A binary frame arrived. The frame itself is not kept: its plaintext is opened into a buffer of its own.
    ///
    /// # Errors
    /// [`SessionError::Record`] ends the transport, everything else the session.
    pub fn handle_frame(&mut self, now: Time, frame: impl AsRef<[u8]>) -> Result<(), SessionError> {
        let frame = frame.as_ref();
        if self.handle_first(now, frame)? || !self.is_attached() {
            return Ok(());
        }
        let Ok(plaintext) = self.opener.open_apart(frame) else { return Err(self.attachment.count_bad()) };
        self.heard();
        let plaintext = plaintext.freeze();
        let (mut welcomes, dry) = (false, self.send_credit == 0);
        let handled = self.handle_messages(now, &plaintext, &mut welcomes);
        if welcomes && let Ok(mut credentials) = plaintext.try_into_mut() {
            credentials.zeroize();
        }
        handled?;
        // Streams that wait for the session's credit are looked at once a record, however often it comes in one.
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
                Message::Control(_) | Message::Data(..) | Message::Welcome(..) if self.farewell.is_heard() => {
                    self.acks.handle_received(now, 0, &self.congestion);
                }
                Message::Handshake(_) => return Err(Misbehaved("a handshake message in a running session")),
                Message::Upkeep(Upkeep::Rekey) => rekeyed = true,
                Message::Upkeep(upkeep) => self.handle_upkeep(now, upkeep)?,
                Message::Control(control) => {
                    self.acks.handle_received(now, 0, &self.congestion);
                    self.handle_control(now, control)?;
                }
                Message::Data(id, range) => {
                    self.acks.handle_received(now, range.len() as u64, &self.congestion);
                    self.handle_data(now, id, plaintext, range)?;
                }
                Message::Welcome(last, part) => {
                    *welcomes = true;
                    self.acks.handle_received(now, part.len() as u64, &self.congestion);
                    self.handle_welcome(last, part)?;
                }
            }
        }
        if rekeyed {
            self.opener.rekey();
        }
        Ok(())
    }

    fn handle_upkeep(&mut self, now: Time, upkeep: Upkeep) -> Result<(), SessionError> {
        match upkeep {
            Upkeep::Ack(m) => self.handle_ack(now, m)?,
            Upkeep::Ping(n) => {
                self.pings.handle_ping(n);
                self.congestion.handle_peer_ping(now);
            }
            Upkeep::Pong(n) => self.pings.handle_pong(now, n, &mut self.congestion),
            Upkeep::Rekey => {}
        }
        Ok(())
    }

    fn handle_ack(&mut self, now: Time, m: u64) -> Result<(), SessionError> {
        let mut newest = None;
        let handled = self.unacked.handle_ack(m, |bytes, stamp| {
            self.congestion.handle_acked(now, bytes, &stamp);
            newest = Some(stamp);
        });
        handled.map_err(|NeverSent| Misbehaved("an acknowledgement of what was never sent"))?;
        if let Some(stamp) = newest {
            self.congestion.sample(now, &stamp);
        }
        Ok(())
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
                self.farewell.handle_heard();
                // The peer waits for the acknowledgement before it leaves.
                self.acks.hurry(now);
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

    fn handle_done(&mut self, now: Time, id: StreamId, reason: Option<String>) -> Result<(), SessionError> {
        let Some(stream) = self.known(id)? else { return Ok(()) };
        if stream.done_received.is_some() {
            return Err(Misbehaved("a second done of one stream"));
        }
        // A plain `done` is the peer's word that its direction is complete.
        stream.eof_received |= reason.is_none();
        let ending = reason.map_or(Ending::Clean, Ending::Failed);
        stream.done_received = Some(ending.clone());
        // The peer reads no more of this stream, and gives no more credit for it.
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
        self.credit.receive(bytes).map_err(|_| Misbehaved("more data than the session's credit"))?;
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
        self.pings.handle_data(now, bytes);
        Ok(())
    }

    fn handle_welcome(&mut self, last: bool, part: &[u8]) -> Result<(), SessionError> {
        if self.role != Role::Client {
            return Err(Misbehaved("a welcome from a client"));
        }
        if let Some(welcome) = self.welcome_in.push(last, part)? {
            self.tell_welcome(welcome);
        }
        Ok(())
    }

    /// Of the welcomes that the application has not polled yet the newest is the one that counts.
    fn tell_welcome(&mut self, welcome: Box<Welcome>) {
        let waits = self.events.iter_mut().find(|event| matches!(event, Event::Welcome(_)));
        match waits {
            Some(before) => *before = Event::Welcome(welcome),
            None => self.events.push_back(Event::Welcome(welcome)),
        }
    }

    /// The stream, or nothing if it is closed already.
    fn known(&mut self, id: StreamId) -> Result<Option<&mut Stream>, SessionError> {
        if !self.slots.was_opened(id) {
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
