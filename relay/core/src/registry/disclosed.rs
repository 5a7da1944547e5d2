//! Sessions whose secret a legacy client may have told the relay. They are remembered for as long as one of their tickets is
//! valid, so that no ticket makes them again.

use std::{
    collections::{HashSet, VecDeque},
    time::Instant,
};

use mykube_protocol::SessionId;

/// Sessions remembered: bounds what a flood of codes can make the relay keep (about 5 MiB). The oldest is forgotten first.
const SESSIONS_MAX: usize = 65_536;
/// Sessions forgotten in one tick.
const FORGOTTEN_AT_ONCE: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Disclosed {
    sessions: HashSet<SessionId>,
    /// In the order in which they are forgotten, since all are kept for the same time.
    until: VecDeque<(Instant, SessionId)>,
}

impl Disclosed {
    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.sessions.contains(&session)
    }

    pub(super) fn insert(&mut self, session: SessionId, until: Instant) {
        if self.sessions.insert(session) {
            if self.until.len() >= SESSIONS_MAX {
                self.forget_oldest();
            }
            self.until.push_back((until, session));
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            match self.until.front() {
                Some((until, _)) if *until <= now => self.forget_oldest(),
                _ => break,
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, session)) = self.until.pop_front() {
            self.sessions.remove(&session);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_are_remembered_until_their_time_is_over() {
        let session = |n: usize| SessionId::from_bytes((n as u128).to_be_bytes());
        #[allow(clippy::disallowed_methods, reason = "there is no other way to an instant")]
        let (start, time) = (Instant::now(), Duration::from_mins(1));
        let mut disclosed = Disclosed::default();
        for n in 0..=SESSIONS_MAX {
            disclosed.insert(session(n), start + time);
            disclosed.insert(session(n), start + time);
        }
        assert_eq!((disclosed.sessions.len(), disclosed.until.len()), (SESSIONS_MAX, SESSIONS_MAX));
        assert!(!disclosed.contains(session(0)) && disclosed.contains(session(1)));
        disclosed.tick(start);
        assert!(disclosed.contains(session(1)));
        for _ in 0..=SESSIONS_MAX / FORGOTTEN_AT_ONCE {
            disclosed.tick(start + time);
        }
        assert!(disclosed.sessions.is_empty() && disclosed.until.is_empty());
    }
}
