//! The agent's word on the cluster, in parts. It may hold credentials, so each part is wiped when it is dropped.

use std::collections::VecDeque;

use mykube_protocol::{
    channel::Welcome,
    limits::{RECORD_PLAINTEXT_MAX, WELCOME_MAX},
};
use zeroize::{Zeroize as _, Zeroizing};

use super::types::SessionError::{self, Misbehaved};
use crate::message::HEAD;

/// Bytes of a welcome's JSON.
pub(super) type Part = Zeroizing<Vec<u8>>;
/// A part leaves room in its record for what is said beside it.
const PART_MAX: usize = RECORD_PLAINTEXT_MAX - 256;

/// Welcomes that wait to be sent.
#[derive(Default)]
pub(super) struct WelcomeOut {
    /// Each with whether it is its welcome's last.
    parts: VecDeque<(bool, Part)>,
    /// A part of the first welcome in it was sent.
    begun: bool,
}

impl WelcomeOut {
    /// Takes a welcome instead of those of which nothing was sent yet.
    pub(super) fn push(&mut self, welcome: &Welcome) -> Result<(), SessionError> {
        // With room for the longest, so that it is nowhere else when it is wiped.
        let mut json = Zeroizing::new(Vec::with_capacity(WELCOME_MAX));
        serde_json::to_writer(&mut *json, welcome).map_err(|_| Misbehaved("a welcome that is no JSON"))?;
        if json.len() > WELCOME_MAX {
            return Err(Misbehaved("this end's welcome is longer than 256 KiB: is the CA bundle that large?"));
        }
        let begun = self.parts.iter().position(|(last, _)| *last).filter(|_| self.begun);
        self.parts.truncate(begun.map_or(0, |last| last + 1));
        let parts = json.chunks(PART_MAX).len();
        for (i, part) in json.chunks(PART_MAX).enumerate() {
            self.parts.push_back((i + 1 == parts, Zeroizing::new(part.to_vec())));
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The next part, with whether it is the last, if it fits into a record with `room` bytes left.
    pub(super) fn pop(&mut self, room: usize) -> Option<(bool, Part)> {
        let (last, part) = self.parts.pop_front_if(|(_, part)| HEAD + 1 + part.len() <= room)?;
        self.begun = !last;
        Some((last, part))
    }
}

/// Parts of a welcome that came.
#[derive(Default)]
pub(super) struct WelcomeIn(Part);

impl WelcomeIn {
    /// Takes a part. Gives the welcome, if it was the last.
    pub(super) fn push(&mut self, last: bool, part: &[u8]) -> Result<Option<Box<Welcome>>, SessionError> {
        if self.0.len() + part.len() > WELCOME_MAX {
            return Err(Misbehaved("a welcome of more than 256 KiB"));
        }
        // All the room at once: what grows leaves copies behind.
        let room = WELCOME_MAX - self.0.len();
        self.0.reserve_exact(room);
        self.0.extend_from_slice(part);
        if !last {
            return Ok(None);
        }
        if !self.0.starts_with(b"{") {
            return Err(Misbehaved("a welcome that is no object"));
        }
        let welcome = serde_json::from_slice(&self.0).map_err(|_| Misbehaved("a welcome with unknown fields"))?;
        // The room stays: to have it anew, and to wipe all of it, would cost a thousand times what the shortest of them says.
        self.0.as_mut_slice().zeroize();
        self.0.clear();
        Ok(Some(welcome))
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    #[test]
    fn credentials_that_wait_or_are_kept_are_wiped() {
        fn wiped<T: ZeroizeOnDrop>(_: &T) {}
        let (out, coming) = (WelcomeOut::default(), WelcomeIn::default());
        wiped(&coming.0);
        out.parts.iter().for_each(|(_, part)| wiped(part));
        // What is kept until it is acknowledged is a part as well: `SentMessage::Welcome`.
        wiped(&Part::default());
    }

    #[test]
    fn credentials_that_come_in_parts_are_never_moved() {
        let mut coming = WelcomeIn::default();
        coming.push(false, b"{").unwrap();
        let stands_at = coming.0.as_ptr();
        for _ in 0..20 {
            coming.push(false, &[b' '; 10_000]).unwrap();
            assert_eq!(coming.0.as_ptr(), stands_at, "a copy was left behind");
        }
    }
}
