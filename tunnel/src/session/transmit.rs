//! What goes into the next record: upkeep, control, the welcome, then streams in their turn.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mykube_protocol::{
    channel::{Control, StreamId, Upkeep},
    limits::{ACK_BYTES_MAX, ACK_BYTES_MIN, CONTROL_UNACKED_MAX},
};

use super::{
    SentMessage, Session, control_len,
    types::{Event, SessionError},
};
use crate::{
    congestion::{Room, Stamp},
    message::{self, DATA_HEAD, HEAD},
    schedule::{Place, Scheduler},
    stream::Item,
    time::Time,
};

/// Longest upkeep text with its head.
const UPKEEP_MAX: usize = HEAD + 25;
/// Longest `credit:{id}:{n}` with its head.
const CREDIT_MAX: usize = HEAD + 39;
/// Room that a record keeps for `rekey`.
const REKEY_ROOM: usize = 16;
/// A step of acknowledgement that comes in this time may be twice as long.
const ACK_QUICK: Duration = Duration::from_millis(1);
/// Below this, payload waits for the next record rather than travel in slivers.
const PAYLOAD_MIN: usize = 256;
/// The peer sends bulk: so much of it since this end's line was measured empty.
const BULK_HEARD: u64 = 256 * 1024;
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
        if let Some(frame) = self.attach_out.pop_front() {
            return Ok(Some(frame));
        }
        if !self.has_something(now) {
            return Ok(None);
        }
        let peer_sends_bulk = self.heard_since_probe >= BULK_HEARD;
        if self.congestion.take_probe(now, peer_sends_bulk) {
            self.heard_since_probe = 0;
            self.send_ping(now);
        }
        let mut frame = BytesMut::with_capacity(self.capacity());
        message::start_record(&mut frame);
        let measures = self.put_upkeep(now, &mut frame);
        let carries_welcome = if self.unsent > 0 {
            self.put_again(now, &mut frame)
        } else {
            self.put_control(now, &mut frame);
            let carries_welcome = self.put_welcome(&mut frame);
            // What measures the line is not delayed by the payload of its own record.
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
        if !self.attach_out.is_empty() {
            return true;
        }
        self.attached
            && (!self.upkeep.is_empty()
                || self.pong.is_some()
                || self.ack_is_due(now)
                || self.ping_is_due(now)
                || self.congestion.wants_probe()
                || self.speaks_soon(now))
    }

    fn stream_is_next(&self, now: Time) -> bool {
        !self.over && self.scheduler.next(self.congestion.room(now)).is_some()
    }

    /// When bulk that only its pace holds back goes on.
    pub(super) fn pace_due(&self) -> Option<Time> {
        let waits = self.unsent > 0 || (!self.over && self.scheduler.next(Room::Bulk).is_some());
        self.congestion.paced_until().filter(|_| waits)
    }

    /// Whether a numbered message may be sent now.
    fn speaks_soon(&self, now: Time) -> bool {
        if self.unsent > 0 {
            return self.may_send_again(now);
        }
        !self.control.is_empty()
            || self.credit_due.is_some_and(|due| due <= now)
            || !self.welcome_out.is_empty()
            || self.stream_is_next(now)
    }

    /// Control messages that the peer never takes or never acknowledges are not kept for it.
    pub(super) fn check_control(&self) -> Result<(), SessionError> {
        if self.kept_control + self.waiting_control > CONTROL_UNACKED_MAX {
            return Err(SessionError::Unacknowledged);
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        let bulk = self.scheduler.has_bulk() || !self.welcome_out.is_empty() || self.unsent > 0;
        let queued = |(id, _): (StreamId, Place)| self.streams.get(&id).map_or(0, |stream| stream.queued);
        if bulk || self.scheduler.next(Room::Bulk).map_or(0, queued) > FRAME_SMALL {
            mykube_protocol::limits::RECORD_PLAINTEXT_MAX + 1 + crate::record::TAG
        } else {
            FRAME_SMALL
        }
    }

    pub(super) fn room(frame: &BytesMut) -> usize {
        message::space(frame).saturating_sub(REKEY_ROOM)
    }

    fn ack_is_due(&self, now: Time) -> bool {
        self.received_m > self.told_m && self.ack_due.is_some_and(|due| due <= now)
    }

    /// Says whether a ping or a pong is in it.
    fn put_upkeep(&mut self, now: Time, frame: &mut BytesMut) -> bool {
        let measures = self.pong.is_some() || !self.upkeep.is_empty();
        if let Some(n) = self.pong.take() {
            message::put_upkeep(frame, Upkeep::Pong(n));
        }
        while let Some(upkeep) = self.upkeep.pop_front() {
            message::put_upkeep(frame, upkeep);
        }
        // Something is being said anyway: the acknowledgement travels with it.
        let rides = self.received_m > self.told_m && (self.untold_bytes >= self.ack_step / 4 || self.speaks_soon(now));
        if rides || self.ack_is_due(now) {
            message::put_upkeep(frame, Upkeep::Ack(self.received_m));
            self.choose_ack_step(now);
            self.told_m = self.received_m;
            self.untold_bytes = 0;
            self.ack_due = None;
        }
        debug_assert!(frame.len() <= 1 + 4 * UPKEEP_MAX);
        measures
    }

    /// Where payload is quick, an acknowledgement for each 64 KiB would be most of what is done; where it is not, they
    /// are what keeps it flowing.
    fn choose_ack_step(&mut self, now: Time) {
        let took = now.since(self.told_at);
        if self.untold_bytes >= self.ack_step && took <= ACK_QUICK {
            self.ack_step = (self.ack_step * 2).min(ACK_BYTES_MAX);
        } else if took > ACK_QUICK * 4 {
            self.ack_step = (self.ack_step / 2).max(ACK_BYTES_MIN);
        }
        self.told_at = now;
    }

    fn put_control(&mut self, now: Time, frame: &mut BytesMut) {
        if self.credit_due.take().is_some() {
            self.told_at = now;
            self.control.extend(self.credit.drain(..).map(|(id, n)| Control::Credit { id, n }));
        }
        while Self::room(frame) >= CREDIT_MAX {
            match self.control.front() {
                // A farewell goes after everything else.
                Some(Control::Bye { .. }) if self.control.len() > 1 => self.control.rotate_left(1),
                Some(Control::Bye { reason }) if Self::room(frame) < HEAD + 4 + reason.len() => return,
                Some(_) => {}
                None => return,
            }
            if let Some(control) = self.control.pop_front() {
                self.waiting_control -= control_len(&control);
                if matches!(control, Control::Bye { .. }) {
                    self.bye_m = Some(self.next_m);
                }
                self.keep_control(frame, control);
            }
        }
    }

    fn keep_control(&mut self, frame: &mut BytesMut, control: Control) -> usize {
        let before = frame.len();
        message::put_control(frame, &control);
        self.kept_control += control_len(&control);
        self.keep(SentMessage::Control(control));
        frame.len() - before
    }

    fn keep(&mut self, message: SentMessage) {
        debug_assert_eq!(self.unsent, 0);
        self.kept.push_back(message);
        self.next_m += 1;
    }

    fn put_welcome(&mut self, frame: &mut BytesMut) -> bool {
        let Some((last, part)) = self.welcome_out.pop_front() else { return false };
        if HEAD + 1 + part.len() > Self::room(frame) {
            self.welcome_out.push_front((last, part));
            return false;
        }
        message::put_welcome(frame, last, &part);
        self.kept_control += part.len();
        self.welcome_begun = !last;
        self.keep(SentMessage::Welcome(last, part));
        true
    }

    fn put_streams(&mut self, now: Time, frame: &mut BytesMut) {
        if self.over {
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
                    if len == 0 || (len < PAYLOAD_MIN && len < waits && room < PAYLOAD_MIN + DATA_HEAD) {
                        return sent;
                    }
                    let mut part = item.split_to(len);
                    if len == waits {
                        stream.outbox.pop_front();
                    } else if stream.narrow {
                        // What is kept of it would keep the rest in memory, also when that is dropped.
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
                    let stamp: Stamp = self.congestion.handle_sent(now, len as u64, dry);
                    self.keep(SentMessage::Data(stamp, id, part));
                    self.measure_later(now);
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
                    if control_len(&control) > room {
                        *item = put_back(control);
                        return sent;
                    }
                    stream.done_sent |= matches!(control, Control::Done { .. });
                    stream.outbox.pop_front();
                    sent += self.keep_control(frame, control);
                }
            }
        }
        sent
    }

    /// Data travels: the round trip is worth measuring again.
    pub(super) fn measure_later(&mut self, now: Time) {
        let soon = now + super::PING_INTERVAL;
        if self.ping.is_none() && self.ping_due.is_none_or(|due| due > soon) {
            self.ping_due = Some(soon);
        }
    }
}

fn put_back(control: Control) -> Item {
    match control {
        Control::New { target, .. } => Item::New(target),
        Control::Done { reason, .. } => Item::Done(reason),
        _ => Item::Eof,
    }
}
