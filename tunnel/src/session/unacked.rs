//! What was sent and is kept until the peer acknowledges it, so that a lost transport loses none of it.

use std::collections::VecDeque;

use bytes::Bytes;
use mykube_protocol::channel::{Control, StreamId};

use super::welcome::Part;
use crate::{
    congestion::{self, Stamp},
    message::control_len,
};

/// Messages there is room for without asking for memory again: what is under way on most lines.
const ROOM: usize = 1024;

/// A message that was sent and is kept until it is acknowledged.
pub(super) enum SentMessage {
    Control(Control),
    Data(Stamp, StreamId, Bytes),
    /// Whether it is the last part of a welcome, and the part.
    Welcome(bool, Part),
}

/// [`congestion::MESSAGE`] covers a message, with the smallest allocation beside it.
const _: () = assert!(size_of::<SentMessage>() as u64 + 32 <= congestion::MESSAGE);

/// The peer acknowledges what was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NeverSent;

/// The messages that the peer may not have, oldest first.
#[derive(Default)]
pub(super) struct Unacked {
    messages: VecDeque<SentMessage>,
    /// How many at the end of `messages` are yet to be sent again, under the present keys.
    again: usize,
    /// Bytes of `messages` that are control or of a welcome.
    control: usize,
    next_m: u64,
    acked_m: u64,
}

impl Unacked {
    /// The number of the message that is sent next.
    pub(super) fn next_m(&self) -> u64 {
        self.next_m
    }

    /// Whether the peer has the message of that number.
    pub(super) fn is_acked(&self, m: u64) -> bool {
        self.acked_m > m
    }

    /// A message is sent for the first time.
    pub(super) fn keep(&mut self, message: SentMessage) {
        debug_assert_eq!(self.again, 0);
        match &message {
            SentMessage::Control(control) => self.control += control_len(control),
            SentMessage::Data(..) => {}
            SentMessage::Welcome(_, part) => self.control += part.len(),
        }
        self.messages.push_back(message);
        self.next_m += 1;
    }

    /// The peer has all messages below `m`. `delivered` hears of each that was payload, with its length.
    pub(super) fn handle_ack(&mut self, m: u64, mut delivered: impl FnMut(u64, Stamp)) -> Result<(), NeverSent> {
        if m > self.next_m - self.again as u64 {
            return Err(NeverSent);
        }
        while self.acked_m < m {
            if let Some((bytes, stamp)) = self.forget_oldest() {
                delivered(bytes, stamp);
            }
        }
        // A queue keeps its room, which many small messages at once may have made large.
        if self.messages.is_empty() {
            self.messages.shrink_to(ROOM);
        }
        Ok(())
    }

    /// The peer has the oldest message. What is known of it, if it was payload.
    fn forget_oldest(&mut self) -> Option<(u64, Stamp)> {
        self.acked_m += 1;
        match self.messages.pop_front()? {
            SentMessage::Control(control) => {
                self.control -= control_len(&control);
                None
            }
            SentMessage::Data(stamp, _, payload) => Some((payload.len() as u64, stamp)),
            SentMessage::Welcome(_, part) => {
                self.control -= part.len();
                None
            }
        }
    }

    /// Whether the peer may say, on a new transport, that it has all messages below `m`.
    pub(super) fn is_possible(&self, m: u64) -> bool {
        (self.acked_m..=self.next_m).contains(&m)
    }

    /// A new transport stands, and the peer has all messages below `m`: the others are to be sent again.
    pub(super) fn resume(&mut self, m: u64) {
        while self.acked_m < m {
            self.forget_oldest();
        }
        self.again = self.messages.len();
    }

    /// Whether something is to be sent again, which goes before all that is new.
    pub(super) fn is_resending(&self) -> bool {
        self.again > 0
    }

    /// The next message to be sent again, and whether it is the last.
    pub(super) fn next_again(&mut self) -> Option<(&mut SentMessage, bool)> {
        let (at, last) = (self.messages.len() - self.again, self.again == 1);
        self.messages.get_mut(at).map(|message| (message, last))
    }

    /// Whether the next message to be sent again is payload, if there is one.
    pub(super) fn next_again_is_data(&self) -> Option<bool> {
        self.messages.get(self.messages.len() - self.again).map(|message| matches!(message, SentMessage::Data(..)))
    }

    /// That message was sent again.
    pub(super) fn handle_sent_again(&mut self) {
        self.again -= 1;
    }

    /// Whether the peer owes an acknowledgement.
    pub(super) fn is_owed(&self) -> bool {
        self.messages.len() > self.again
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Bytes of control messages and welcomes.
    pub(super) fn control(&self) -> usize {
        self.control
    }

    /// Bytes of payload.
    pub(super) fn payload(&self) -> u64 {
        let payload = |message: &SentMessage| match message {
            SentMessage::Data(.., payload) => payload.len() as u64,
            SentMessage::Control(_) | SentMessage::Welcome(..) => 0,
        };
        self.messages.iter().map(payload).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{congestion::Congestion, time::Time};

    fn data(len: usize) -> SentMessage {
        let stamp = Congestion::new(Time::default()).handle_sent(Time::default(), len as u64, false);
        SentMessage::Data(stamp, 1, vec![0; len].into())
    }

    /// A control message, payload of 10 and of 20 bytes, a part of a welcome.
    fn sent() -> Unacked {
        let mut unacked = Unacked::default();
        unacked.keep(SentMessage::Control(Control::Eof { id: 1 }));
        unacked.keep(data(10));
        unacked.keep(data(20));
        unacked.keep(SentMessage::Welcome(true, Part::new(vec![7; 5])));
        unacked
    }

    #[test]
    fn what_is_acknowledged_is_forgotten_and_payload_is_told() {
        let (mut unacked, mut told) = (sent(), Vec::new());
        let eof = control_len(&Control::Eof { id: 1 });
        assert_eq!((unacked.len(), unacked.control(), unacked.payload()), (4, eof + 5, 30));
        for (m, expected) in [(0, &[][..]), (1, &[]), (3, &[10, 20]), (3, &[]), (1, &[])] {
            told.clear();
            unacked.handle_ack(m, |bytes, _| told.push(bytes)).unwrap();
            assert_eq!(told, expected, "{m}");
        }
        assert_eq!((unacked.len(), unacked.control(), unacked.payload()), (1, 5, 0));
        assert!(unacked.is_acked(2) && !unacked.is_acked(3) && unacked.is_owed());
        assert_eq!(unacked.handle_ack(5, |_, _| ()), Err(NeverSent));
        unacked.handle_ack(4, |_, _| ()).unwrap();
        assert_eq!((unacked.len(), unacked.control(), unacked.is_owed()), (0, 0, false));
    }

    #[test]
    fn what_the_peer_has_not_received_is_sent_again_in_its_order_and_acknowledged_only_then() {
        let mut unacked = sent();
        unacked.handle_ack(1, |_, _| ()).unwrap();
        assert_eq!([0, 1, 4, 5].map(|m| unacked.is_possible(m)), [false, true, true, false]);
        unacked.resume(2);
        assert!(unacked.is_resending() && !unacked.is_owed());
        assert_eq!(unacked.handle_ack(3, |_, _| ()), Err(NeverSent), "not under these keys");
        assert_eq!(unacked.next_again_is_data(), Some(true));
        let Some((SentMessage::Data(.., payload), false)) = unacked.next_again() else { panic!("not the oldest") };
        assert_eq!(payload.len(), 20);
        unacked.handle_sent_again();
        assert!(unacked.is_owed());
        unacked.handle_ack(3, |_, _| ()).unwrap();
        assert!(matches!(unacked.next_again(), Some((SentMessage::Welcome(true, _), true))));
        unacked.handle_sent_again();
        assert!(!unacked.is_resending() && unacked.next_again().is_none());
        assert_eq!(unacked.next_m(), 4, "their numbers stay");
    }

    #[test]
    fn an_empty_queue_gives_back_the_room_of_many() {
        let mut unacked = Unacked::default();
        (0..10 * ROOM).for_each(|_| unacked.keep(data(1)));
        unacked.handle_ack(10 * ROOM as u64, |_, _| ()).unwrap();
        assert!(unacked.messages.capacity() <= 2 * ROOM, "{}", unacked.messages.capacity());
    }
}
