//! The transport under a session: whether it lives, and how the next one takes over.
//!
//! A session is *attached* while its keys serve a transport that is not known to be gone. When the transport is lost
//! nothing else changes; when the peer's first record under an attach's keys opens, what it has not received is sent
//! again, sealed anew. docs/protocol.md, "Resume".

use std::time::Duration;

use bytes::BytesMut;
use mykube_protocol::{
    Role, frame,
    limits::{ATTACH_RETRY, ATTACH_UNASKED, BAD_RECORDS_MAX, DEAD_AFTER, JUMP_TIMEOUT, PING_TIMEOUT, PROBE_AFTER},
};
use rand_core::CryptoRng;

use super::{
    PINGS_FIRST, SentMessage, Session, control_len,
    types::{Event, Owed, SessionError, SessionError::Misbehaved},
};
use crate::{
    congestion::{Congestion, Room},
    message::{self, DATA_HEAD, HEAD},
    record::RecordError,
    resume::First,
    time::Time,
};

impl Session {
    /// Whether the session's keys serve a transport that is not known to be gone.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached
    }

    /// Transports so far, the handshake's not counted.
    #[must_use]
    pub fn attaches(&self) -> u64 {
        self.resume.confirmed()
    }

    /// The transport is gone: this end's socket, or the peer's. Streams stay as they are and nothing is sent until an
    /// attach stands.
    pub fn handle_transport_lost(&mut self, now: Time) {
        self.attached = false;
        self.attach_out.clear();
        self.ask_due = (self.role == Role::Client).then(|| now + ATTACH_UNASKED);
        self.owed = None;
        self.ping = None;
        self.pong = None;
        self.upkeep.clear();
        self.congestion = Congestion::new(now);
    }

    /// The relay says that both ends of the session are there, over another transport than before. The client asks for
    /// an attach; the agent awaits it.
    pub fn handle_peer_here(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.handle_transport_lost(now);
        self.ask(now + ATTACH_RETRY, rng);
    }

    fn ask(&mut self, again: Time, rng: &mut impl CryptoRng) {
        self.ask_due = None;
        if self.role == Role::Client && !self.is_over() {
            self.attach_out.clear();
            let request = self.resume.ask(rng);
            self.attach_out.push_back(request);
            self.ask_due = Some(again);
        }
    }

    /// No answer came to the client's question, or nobody told it to ask: it asks. To be called after
    /// [`Session::handle_timeout`], with the transport still there.
    pub fn ask_again(&mut self, now: Time, rng: &mut impl CryptoRng) {
        if !self.attached && self.ask_due.is_some_and(|due| due <= now) {
            self.ask(now + ATTACH_UNASKED, rng);
        }
    }

    /// A binary frame of type 3 or 4 arrived. What is not the peer's, or late, is dropped.
    pub fn handle_attach(&mut self, now: Time, frame: &[u8], rng: &mut impl CryptoRng) {
        match self.role {
            Role::Agent => {
                if let Some(answer) = self.resume.answer(frame, rng) {
                    // One at a time, whoever repeats the question.
                    self.attach_out.retain(|frame| frame.first() != Some(&frame::ATTACH_AGENT));
                    self.attach_out.push_back(answer);
                }
            }
            Role::Client => {
                if let Some(first) = self.resume.handle_answer(frame, self.received_m) {
                    // From here on the agent may switch at any time: nothing goes under the old keys any more.
                    self.handle_transport_lost(now);
                    self.attach_out.push_back(first);
                    self.ask_due = Some(now + ATTACH_RETRY);
                }
            }
        }
    }

    /// The clock jumped or the route changed: the transport must show life within two seconds.
    pub fn probe(&mut self, now: Time) {
        if self.attached {
            self.send_ping(now);
            self.owed = Some(Owed { since: now, probed: true, within: Some(JUMP_TIMEOUT) });
        }
    }

    /// Whether the transport is still to show life after [`Session::probe`].
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.owed.is_some_and(|owed| owed.within.is_some())
    }

    /// The peer's farewell, as long as it waits to be polled.
    pub(crate) fn heard_bye(&self) -> Option<&str> {
        if !self.peer_over {
            return None;
        }
        self.events.iter().find_map(|event| if let Event::Bye(reason) = event { Some(reason.as_str()) } else { None })
    }

    /// Whether a frame is the peer's first record of an attach; then it stands.
    pub(super) fn handle_first(&mut self, now: Time, frame: &[u8]) -> Result<bool, SessionError> {
        let first = self.resume.open_first(frame).map_err(|_| Misbehaved("an attach without its first record"))?;
        let Some(First { received, sealer, opener, .. }) = first else { return Ok(false) };
        if received < self.acked_m || received > self.next_m {
            return Err(Misbehaved("it claims to have received what was never sent, or less than it acknowledged"));
        }
        self.handle_transport_lost(now);
        (self.sealer, self.opener) = (sealer, opener);
        self.sealer.set_limits(self.config.rekey_records, self.config.rekey_bytes);
        if self.role == Role::Agent {
            let first = self.resume.confirm(&mut self.sealer, self.received_m);
            self.attach_out.push_back(first);
        }
        while self.acked_m < received {
            self.forget_oldest();
        }
        self.unsent = self.kept.len();
        // The first record told all of it.
        self.told_m = self.received_m;
        self.untold_bytes = 0;
        self.ack_due = None;
        self.attached = true;
        self.ping_due = Some(now);
        self.pings_first = PINGS_FIRST;
        self.heard_since_probe = 0;
        self.wait_anew(now);
        self.events.push_back(Event::Back);
        Ok(true)
    }

    /// A record of the peer opened that is not an attach's first one: that one is sent before the client knows the
    /// agent's proof, and a relay can have as many attaches as it likes between records that it spoils.
    pub(super) fn heard(&mut self) {
        self.bad_records = 0;
        self.resume.unproved = None;
        self.owed = None;
    }

    pub(super) fn count_bad(&mut self) -> SessionError {
        self.bad_records += 1;
        if self.bad_records >= BAD_RECORDS_MAX { SessionError::Forged } else { RecordError.into() }
    }

    /// From when on the peer owes an acknowledgement or an answer, if it does.
    pub(super) fn reckon_debt(&mut self, now: Time) {
        if self.kept.len() > self.unsent || self.ping.is_some() {
            self.owed.get_or_insert(Owed { since: now, probed: false, within: None });
        }
    }

    /// When silence has to be looked at.
    pub(super) fn silence_due(&self) -> Option<Time> {
        let owed = self.owed?;
        let dead = owed.since + self.patience(&owed);
        Some(if owed.probed { dead } else { dead.min(owed.since + self.probe_after()) })
    }

    fn probe_after(&self) -> Duration {
        PROBE_AFTER.max(self.congestion.rtt().unwrap_or_default() * 3)
    }

    fn patience(&self, owed: &Owed) -> Duration {
        owed.within.unwrap_or(if self.kept.len() > self.unsent { DEAD_AFTER } else { PING_TIMEOUT })
    }

    pub(super) fn notice_silence(&mut self, now: Time) {
        let Some(owed) = self.owed.filter(|_| self.attached) else { return };
        if now >= owed.since + self.patience(&owed) {
            self.handle_transport_lost(now);
            self.events.push_back(Event::Silent);
        } else if !owed.probed && now >= owed.since + self.probe_after() {
            self.owed = Some(Owed { probed: true, ..owed });
            self.send_ping(now);
        }
    }

    /// Whether the next message to be sent again may go now: control always, data as the line takes it.
    pub(super) fn may_send_again(&self, now: Time) -> bool {
        match self.kept.get(self.kept.len() - self.unsent) {
            Some(SentMessage::Data(..)) => self.congestion.room(now) == Room::Bulk,
            Some(_) => true,
            None => false,
        }
    }

    /// Puts what the peer has not received into the record, in its order. Says whether a part of a welcome is in it.
    pub(super) fn put_again(&mut self, now: Time, frame: &mut BytesMut) -> bool {
        while self.unsent > 0 && self.may_send_again(now) {
            let next = self.kept.len() - self.unsent;
            let room = Self::room(frame);
            match &mut self.kept[next] {
                SentMessage::Control(control) => {
                    if control_len(control) > room {
                        return false;
                    }
                    message::put_control(frame, control);
                }
                SentMessage::Data(stamp, id, payload) => {
                    if DATA_HEAD + payload.len() > room {
                        return false;
                    }
                    message::put_data(frame, *id, payload);
                    *stamp = self.congestion.handle_sent(now, payload.len() as u64, self.unsent == 1);
                    self.measure_later(now);
                }
                SentMessage::Welcome(last, part) => {
                    if HEAD + 1 + part.len() > room {
                        return false;
                    }
                    message::put_welcome(frame, *last, part);
                    self.unsent -= 1;
                    return true;
                }
            }
            self.unsent -= 1;
        }
        false
    }
}
