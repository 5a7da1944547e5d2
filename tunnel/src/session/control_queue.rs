//! Control messages that keep no order with a stream's, as they wait to be sent.

use std::collections::VecDeque;

use mykube_protocol::channel::Control;

use crate::message::{HEAD, control_len};

/// A record with less room takes no more of them: the longest `credit:{id}:{n}` with its head.
const ROOM_MIN: usize = HEAD + 39;

/// Messages leave in their order, but a farewell goes after everything else.
#[derive(Debug, Default)]
pub(super) struct ControlQueue {
    messages: VecDeque<Control>,
    /// Length of all `messages`.
    bytes: usize,
}

impl ControlQueue {
    pub(super) fn push(&mut self, control: Control) {
        self.bytes += control_len(&control);
        self.messages.push_back(control);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.bytes
    }

    /// The next message, if it fits into a record with `room` bytes left.
    pub(super) fn pop(&mut self, room: usize) -> Option<Control> {
        if room < ROOM_MIN {
            return None;
        }
        match self.messages.front()? {
            Control::Bye { .. } if self.messages.len() > 1 => self.messages.rotate_left(1),
            Control::Bye { reason } if room < HEAD + "bye:".len() + reason.len() => return None,
            _ => {}
        }
        let control = self.messages.pop_front()?;
        self.bytes -= control_len(&control);
        Some(control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_goes_last_and_needs_room_for_its_words() {
        let mut queue = ControlQueue::default();
        let bye = Control::Bye { reason: "x".repeat(200) };
        queue.push(bye.clone());
        queue.push(Control::Eof { id: 1 });
        queue.push(Control::Done { id: 3, reason: None });
        assert_eq!(queue.pop(ROOM_MIN - 1), None);
        assert_eq!(queue.pop(ROOM_MIN), Some(Control::Eof { id: 1 }));
        assert_eq!(queue.pop(ROOM_MIN), Some(Control::Done { id: 3, reason: None }));
        assert_eq!(queue.waiting(), control_len(&bye));
        assert_eq!(queue.pop(HEAD + 4 + 199), None);
        assert_eq!(queue.pop(HEAD + 4 + 200), Some(bye));
        assert!(queue.is_empty() && queue.waiting() == 0);
    }
}
