//! The transport under a session: whether it lives, and how the next one takes over.
//!
//! A session is *attached* while its keys serve a transport that is not known to be gone. When the transport is lost
//! nothing else changes; when the peer's first record under an attach's keys opens, what it has not received is sent
//! again, sealed anew. docs/protocol.md, "Resume".

use bytes::BytesMut;
use mykube_protocol::{
    Role,
    limits::{ATTACH_RETRY, ATTACH_UNASKED},
};
use rand_core::CryptoRng;

use super::{
    Session,
    liveness::{Verdict, Waits},
    types::{Event, SessionError, SessionError::Misbehaved},
    unacked::SentMessage,
};
use crate::{
    congestion::{Congestion, Room},
    message::{self, DATA_HEAD, HEAD, control_len},
    resume::First,
    time::Time,
};

impl Session {
    /// Whether the session's keys serve a transport that is not known to be gone.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attachment.stands()
    }

    /// Transports so far, the handshake's not counted.
    #[must_use]
    pub fn attaches(&self) -> u64 {
        self.resume.confirmed()
    }

    /// The transport is gone: this end's socket, or the peer's. Streams stay as they are and nothing is sent until an
    /// attach stands.
    pub fn handle_transport_lost(&mut self, now: Time) {
        let ask_due = (self.role == Role::Client).then(|| now + ATTACH_UNASKED);
        self.attachment.handle_lost(ask_due);
        self.liveness.clear();
        self.pings.handle_transport_lost();
        self.congestion = Congestion::new(now);
    }

    /// The relay says that both ends of the session are there, over another transport than before. The client asks for
    /// an attach; the agent awaits it.
    pub fn handle_peer_here(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.handle_transport_lost(now);
        self.ask(now + ATTACH_RETRY, rng);
    }

    fn ask(&mut self, again: Time, rng: &mut impl CryptoRng) {
        if self.role == Role::Client && !self.is_over() {
            let request = self.resume.ask(rng);
            self.attachment.ask(request, again);
        } else {
            self.attachment.stop_asking();
        }
    }

    /// No answer came to the client's question, or the relay did not make it ask: it asks. To be called after
    /// [`Session::handle_timeout`], with the transport still there.
    pub fn ask_again(&mut self, now: Time, rng: &mut impl CryptoRng) {
        if !self.is_attached() && self.attachment.ask_due().is_some_and(|due| due <= now) {
            self.ask(now + ATTACH_UNASKED, rng);
        }
    }

    /// A binary frame of type 3 or 4 arrived. What is not the peer's, or late, is dropped.
    pub fn handle_attach(&mut self, now: Time, frame: &[u8], rng: &mut impl CryptoRng) {
        match self.role {
            Role::Agent => {
                if let Some(answer) = self.resume.answer(frame, rng) {
                    self.attachment.answer(answer);
                }
            }
            Role::Client => {
                if let Some(first) = self.resume.handle_answer(frame, self.acks.received()) {
                    // From here on the agent may switch at any time: nothing goes under the old keys any more.
                    self.handle_transport_lost(now);
                    self.attachment.ask(first, now + ATTACH_RETRY);
                }
            }
        }
    }

    /// The clock jumped or the route changed: the transport must show life within two seconds.
    pub fn probe(&mut self, now: Time) {
        if self.is_attached() {
            self.pings.send(now);
            self.liveness.probe(now);
        }
    }

    /// Whether the transport is still to show life after [`Session::probe`].
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.liveness.is_probing()
    }

    /// The peer's farewell, as long as it waits to be polled.
    pub(crate) fn heard_bye(&self) -> Option<&str> {
        if !self.farewell.is_heard() {
            return None;
        }
        self.events.iter().find_map(|event| if let Event::Bye(reason) = event { Some(reason.as_str()) } else { None })
    }

    /// Whether a frame is the peer's first record of an attach; then it stands.
    pub(super) fn handle_first(&mut self, now: Time, frame: &[u8]) -> Result<bool, SessionError> {
        let first = self.resume.open_first(frame).map_err(|_| Misbehaved("an attach without its first record"))?;
        let Some(First { received, sealer, opener, .. }) = first else { return Ok(false) };
        if !self.unacked.is_possible(received) {
            return Err(Misbehaved("it claims to have received what was never sent, or less than it acknowledged"));
        }
        self.handle_transport_lost(now);
        (self.sealer, self.opener) = (sealer, opener);
        self.sealer.set_limits(self.config.rekey_records, self.config.rekey_bytes);
        if self.role == Role::Agent {
            let first = self.resume.confirm(&mut self.sealer, self.acks.received());
            self.attachment.push(first);
        }
        self.unacked.resume(received);
        // The first record told all of it.
        self.acks.handle_told();
        self.attachment.handle_attached();
        self.pings.handle_attached(now);
        self.wait_anew(now);
        self.events.push_back(Event::Back);
        Ok(true)
    }

    /// A record of the peer opened that is not an attach's first one: that one is sent before the client knows the
    /// agent's proof, and a relay can have as many attaches as it likes between records that it spoils.
    pub(super) fn heard(&mut self) {
        self.attachment.handle_good();
        self.resume.unproved = None;
        self.liveness.clear();
    }

    /// From when on the peer owes an acknowledgement or an answer, if it does.
    pub(super) fn reckon_debt(&mut self, now: Time) {
        if self.unacked.is_owed() || self.pings.is_owed() {
            self.liveness.expect(now);
        }
    }

    /// What the peer's silence is measured by.
    pub(super) fn waits(&self) -> Waits {
        Waits { for_ack: self.unacked.is_owed(), rtt: self.congestion.rtt() }
    }

    pub(super) fn check_liveness(&mut self, now: Time) {
        if !self.is_attached() {
            return;
        }
        match self.liveness.handle_timeout(now, self.waits()) {
            Verdict::Patience => {}
            Verdict::Ask => self.pings.send(now),
            Verdict::Dead => {
                self.handle_transport_lost(now);
                self.events.push_back(Event::Silent);
            }
        }
    }

    /// Whether the next message to be sent again may go now: control always, data as the line takes it.
    pub(super) fn may_send_again(&self, now: Time) -> bool {
        match self.unacked.next_again_is_data() {
            Some(true) => self.congestion.room(now) == Room::Bulk,
            Some(false) => true,
            None => false,
        }
    }

    /// Puts what the peer has not received into the record, in its order. Says whether a part of a welcome is in it.
    pub(super) fn put_again(&mut self, now: Time, frame: &mut BytesMut) -> bool {
        while self.may_send_again(now) {
            let room = Self::room(frame);
            let Some((message, last)) = self.unacked.next_again() else { return false };
            let is_welcome = match message {
                SentMessage::Control(control) => {
                    if control_len(control) > room {
                        return false;
                    }
                    message::put_control(frame, control);
                    false
                }
                SentMessage::Data(stamp, id, payload) => {
                    if DATA_HEAD + payload.len() > room {
                        return false;
                    }
                    message::put_data(frame, *id, payload);
                    *stamp = self.congestion.handle_sent(now, payload.len() as u64, last);
                    self.pings.measure_soon(now);
                    false
                }
                SentMessage::Welcome(last, part) => {
                    if HEAD + 1 + part.len() > room {
                        return false;
                    }
                    message::put_welcome(frame, *last, part);
                    true
                }
            };
            self.unacked.handle_sent_again();
            if is_welcome {
                return true;
            }
        }
        false
    }
}
