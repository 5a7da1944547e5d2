//! What goes into the next record: upkeep, control, the welcome, then streams in their turn.

use bytes::{Bytes, BytesMut};
use mykube_protocol::{
    channel::{Control, StreamId, Upkeep},
    limits::{CONTROL_UNACKED_MAX, RECORD_PLAINTEXT_MAX},
};

use super::{
    Session,
    types::{Event, SessionError},
    unacked::SentMessage,
};
use crate::{
    congestion::Room,
    message::{self, DATA_HEAD, HEAD, control_len},
    record::TAG,
    schedule::{Place, Scheduler},
    stream::Item,
    time::Time,
};

/// Longest upkeep text with its head.
const UPKEEP_MAX: usize = HEAD + 25;
/// Room that a record keeps for `rekey`.
const REKEY_ROOM: usize = 16;
/// Below this, payload waits for the next record rather than travel in slivers.
const PAYLOAD_MIN: usize = 256;
/// First allocation of a frame: most are small. Bulk grows it once.
const FRAME_SMALL: usize = 512;

impl Session {
    /// The next frame to send, if there is anything to say.
    ///
    /// # Errors
    /// [`SessionError::Unacknowledged`].
    pub fn poll_transmit(&mut self, now: Time) -> Result<Option<BytesMut>, SessionError> {
        self.check_control()?;
        self.handle_timeout(now);
        if let Some(frame) = self.attachment.pop() {
            return Ok(Some(frame));
        }
        if !self.has_something(now) {
            return Ok(None);
        }
        if self.congestion.take_probe(now, self.pings.peer_sends_bulk()) {
            self.pings.probe(now);
        }
        let mut frame = BytesMut::with_capacity(self.capacity());
        message::start_record(&mut frame);
        let measures = self.put_upkeep(now, &mut frame);
        let carries_welcome = if self.unacked.is_resending() {
            self.put_again(now, &mut frame)
        } else {
            self.put_control(now, &mut frame);
            let carries_welcome = self.put_welcome(&mut frame);
            // A ping or pong is not delayed by payload in its own record.
            if !carries_welcome && !measures {
                self.put_streams(now, &mut frame);
            }
            carries_welcome
        };
        if frame.len() == 1 {
            return Ok(None);
        }
        let rekey = self.sealer.is_last();
        if rekey {
            message::put_upkeep(&mut frame, Upkeep::Rekey);
        }
        message::pad(&mut frame, carries_welcome);
        self.sealer.seal(&mut frame);
        if rekey {
            self.sealer.rekey();
        }
        self.reckon_debt(now);
        Ok(Some(frame))
    }

    pub(super) fn has_something(&self, now: Time) -> bool {
        self.attachment.has_frames()
            || self.is_attached()
                && (self.pings.has_something()
                    || self.acks.is_due(now)
                    || self.ping_is_due(now)
                    || self.congestion.wants_probe()
                    || self.speaks_soon(now))
    }

    fn stream_is_next(&self, now: Time) -> bool {
        !self.farewell.is_over() && self.scheduler.next(self.congestion.room(now)).is_some()
    }

    /// When bulk that only its pace holds back goes on.
    pub(super) fn pace_due(&self) -> Option<Time> {
        let waits =
            self.unacked.is_resending() || (!self.farewell.is_over() && self.scheduler.next(Room::Bulk).is_some());
        self.congestion.paced_until().filter(|_| waits)
    }

    /// Whether a numbered message may be sent now.
    fn speaks_soon(&self, now: Time) -> bool {
        if self.unacked.is_resending() {
            return self.may_send_again(now);
        }
        !self.control.is_empty() || self.credit.is_due(now) || !self.welcome_out.is_empty() || self.stream_is_next(now)
    }

    /// Control messages that the peer never takes or never acknowledges are not kept for it.
    pub(super) fn check_control(&self) -> Result<(), SessionError> {
        if self.control_bytes() > CONTROL_UNACKED_MAX {
            return Err(SessionError::Unacknowledged);
        }
        Ok(())
    }

    /// Bytes of control messages and welcomes that wait, or are kept.
    pub(super) fn control_bytes(&self) -> usize {
        self.unacked.control() + self.control.waiting() + self.credit.waiting()
    }

    fn capacity(&self) -> usize {
        let bulk = self.scheduler.has_bulk() || !self.welcome_out.is_empty() || self.unacked.is_resending();
        let queued = |(id, _): (StreamId, Place)| self.streams.get(&id).map_or(0, |stream| stream.queued);
        if bulk || self.scheduler.next(Room::Bulk).map_or(0, queued) > FRAME_SMALL {
            RECORD_PLAINTEXT_MAX + 1 + TAG
        } else {
            FRAME_SMALL
        }
    }

    pub(super) fn room(frame: &BytesMut) -> usize {
        message::space(frame).saturating_sub(REKEY_ROOM)
    }

    /// Says whether a ping or a pong is in it.
    fn put_upkeep(&mut self, now: Time, frame: &mut BytesMut) -> bool {
        let measures = self.pings.has_something();
        self.pings.put(frame);
        // Something is being said anyway: the acknowledgement travels with it.
        let rides = self.acks.is_owing() && (self.acks.is_worthwhile() || self.speaks_soon(now));
        if rides || self.acks.is_due(now) {
            message::put_upkeep(frame, Upkeep::Ack(self.acks.tell(now)));
        }
        debug_assert!(frame.len() <= 1 + 4 * UPKEEP_MAX);
        measures
    }

    fn put_control(&mut self, now: Time, frame: &mut BytesMut) {
        if let Some(credit) = self.credit.take() {
            self.acks.handle_credit_told(now);
            credit.for_each(|credit| self.control.push(credit));
        }
        while let Some(control) = self.control.pop(Self::room(frame)) {
            if matches!(control, Control::Bye { .. }) {
                self.farewell.handle_sent(self.unacked.next_m());
            }
            self.send_control(frame, control);
        }
    }

    /// Puts it into the record, and keeps it.
    fn send_control(&mut self, frame: &mut BytesMut, control: Control) {
        message::put_control(frame, &control);
        self.unacked.keep(SentMessage::Control(control));
    }

    fn put_welcome(&mut self, frame: &mut BytesMut) -> bool {
        let Some((last, part)) = self.welcome_out.pop(Self::room(frame)) else { return false };
        message::put_welcome(frame, last, &part);
        self.unacked.keep(SentMessage::Welcome(last, part));
        true
    }

    fn put_streams(&mut self, now: Time, frame: &mut BytesMut) {
        if self.farewell.is_over() {
            return;
        }
        let low = self.share() / 2;
        while let Some((id, _)) = self.scheduler.next(self.congestion.room(now)) {
            let sent = self.put_stream(now, id, frame);
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let more = stream.is_ready(self.send_credit);
            let stuck = sent == 0 && more;
            if self.scheduler.handle_sent(now, id, &mut stream.turn, sent, more) {
                self.congestion.handle_little_said(now);
            }
            if stream.write_waits && stream.queued < low {
                stream.write_waits = false;
                self.events.push_back(Event::Writable(id));
            }
            self.forget_if_over(id);
            if stuck {
                return;
            }
        }
    }

    /// Puts as much of a stream into the record as its turn, its credit and the record allow.
    fn put_stream(&mut self, now: Time, id: StreamId, frame: &mut BytesMut) -> usize {
        let mut sent = 0;
        let quantum = self.congestion.quantum();
        let Some(stream) = self.streams.get_mut(&id) else { return 0 };
        let allowance = Scheduler::allowance(&mut stream.turn, quantum);
        while sent < allowance {
            let Some(stream) = self.streams.get_mut(&id) else { return sent };
            let room = Self::room(frame);
            match stream.outbox.front_mut() {
                None => return sent,
                Some(item @ (Item::Data(_) | Item::Joined(_))) => {
                    let waits = item.len();
                    let credit = stream.credit.min(self.send_credit);
                    let most = room.saturating_sub(DATA_HEAD).min(allowance - sent);
                    let len = waits.min(most).min(usize::try_from(credit).unwrap_or(usize::MAX));
                    if len == 0 || (len < waits && room < PAYLOAD_MIN + DATA_HEAD) {
                        return sent;
                    }
                    let mut part = item.split_to(len);
                    if len == waits {
                        stream.outbox.pop_front();
                    } else if stream.narrow {
                        // The kept part would keep the rest in memory, also when the application's bytes are dropped.
                        part = Bytes::copy_from_slice(&part);
                    }
                    stream.queued -= len;
                    stream.credit -= len as u64;
                    self.send_credit -= len as u64;
                    if stream.credit == 0 {
                        stream.dry_since = now;
                    }
                    let dry = stream.outbox.is_empty();
                    message::put_data(frame, id, &part);
                    let stamp = self.congestion.handle_sent(now, len as u64, dry);
                    self.unacked.keep(SentMessage::Data(stamp, id, part));
                    self.pings.measure_soon(now);
                    sent += len;
                }
                Some(item) => {
                    let control = match item {
                        Item::New(target) => Control::New { id, target: target.take() },
                        Item::Eof => Control::Eof { id },
                        Item::Done(reason) => Control::Done { id, reason: reason.take() },
                        Item::Data(_) | Item::Joined(_) => return sent,
                    };
                    // A text that does not fit waits for a record of its own, in its place.
                    let len = control_len(&control);
                    if len > room {
                        *item = put_back(control);
                        return sent;
                    }
                    stream.done_sent |= matches!(control, Control::Done { .. });
                    stream.outbox.pop_front();
                    self.send_control(frame, control);
                    sent += len;
                }
            }
        }
        sent
    }
}

fn put_back(control: Control) -> Item {
    match control {
        Control::New { target, .. } => Item::New(target),
        Control::Done { reason, .. } => Item::Done(reason),
        _ => Item::Eof,
    }
}
