//! How much memory the heads of one client's requests may hold, on all its connections together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What each head may hold without being counted: kubectl's heads are shorter, and a client has at most 1,024 streams.
pub(crate) const FREE: usize = 16 * 1024;
/// How many times a head's byte is held: as it came, and as it is written to the API server.
const COPIES: usize = 2;
/// What a field holds beside its bytes: entries in the map that is forwarded and in the copy that hyper gets, each of
/// up to 208 bytes as a map doubles, and a name of its own.
const FIELD: usize = 512;
/// What the longer heads of a client may hold together: at least fifteen of the API server's longest at once.
pub(crate) const LONG_HEADS: usize = 32 * 1024 * 1024;

/// The room of one client. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct HeadRoom(Arc<AtomicUsize>);

impl HeadRoom {
    pub(crate) fn enter(&self) -> Room {
        Room { all: self.clone(), held: 0 }
    }
}

/// What a head with this many bytes and fields holds until its request is over. For an answer's head: as it was read,
/// and as it is written to the client.
pub(crate) fn held(bytes: usize, fields: usize) -> usize {
    bytes * COPIES + fields * FIELD
}

/// What one head holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    all: HeadRoom,
    held: usize,
}

impl Room {
    /// Makes the room large enough for `bytes`. `false` if the client's other heads leave too little.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(FREE).saturating_sub(self.held);
        if more == 0 {
            return true;
        }
        let fits = |held: usize| held.checked_add(more).filter(|held| *held <= LONG_HEADS);
        let grown = self.all.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok();
        if grown {
            self.held += more;
        }
        grown
    }

    /// Moves all of it to the next holder of the head.
    pub(crate) fn take(&mut self) -> Self {
        Self { all: self.all.clone(), held: std::mem::take(&mut self.held) }
    }

    /// The bytes that are counted.
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.held > 0 {
            self.all.0.fetch_sub(self.held, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_heads_are_free_and_long_ones_share() {
        let client = HeadRoom::default();
        let short: Vec<_> = (0..10_000).map(|_| client.enter()).collect();
        for mut room in short {
            assert!(room.grow(FREE));
        }
        let mut long = client.enter();
        assert!(long.grow(FREE + LONG_HEADS) && long.grow(FREE + 1));
        let mut other = client.enter();
        assert!(other.grow(FREE) && !other.grow(FREE + 1));
        drop(long);
        assert!(other.grow(FREE + 1));
        assert!(HeadRoom::default().enter().grow(FREE + LONG_HEADS), "another client's");
    }
}
