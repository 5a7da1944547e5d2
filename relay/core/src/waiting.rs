//! A socket that waits for its slot while another socket of the same end has it.
//!
//! It asks ([`Registry::handle_join`](crate::registry::Registry::handle_join)) at once, and again when its end was heard and the
//! time of the last answer is over. The caller asks when [`Waiting::poll`] says so, and reports what comes by the `handle_*`.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    heard: bool,
    taken: Option<Taken>,
}

/// Until when the slot is another's whatever is heard, and until when something must have been heard.
#[derive(Clone, Copy, Debug)]
struct Taken {
    ready: Instant,
    by: Instant,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for the slot.
    Join,
    /// Nothing, until then or until bytes come.
    Wait(Instant),
    /// Nobody is there: close the socket.
    GiveUp,
}

impl Waiting {
    /// Whether bytes came from the socket.
    #[must_use]
    pub fn heard(&self) -> bool {
        self.heard
    }

    /// Bytes came from the socket.
    pub fn handle_heard(&mut self) {
        self.heard = true;
    }

    /// The slot is another's for at least `wait`. `timeout`: how long the socket then has to get it.
    pub fn handle_taken(&mut self, now: Instant, wait: Duration, timeout: Duration) {
        self.taken = Some(Taken { ready: now + wait, by: now + timeout });
    }

    /// What comes next.
    #[must_use]
    pub fn poll(&self, now: Instant) -> Next {
        match self.taken {
            None => Next::Join,
            Some(Taken { ready, .. }) if self.heard && ready <= now => Next::Join,
            Some(Taken { by, .. }) if by <= now => Next::GiveUp,
            Some(Taken { ready, by }) => Next::Wait(if self.heard { ready.min(by) } else { by }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    #[allow(clippy::disallowed_methods, reason = "there is no other way to an instant")]
    fn it_asks_once_heard_and_once_it_is_time_and_is_given_up_otherwise() {
        let (start, timeout) = (Instant::now(), 10 * SECOND);
        let mut waiting = Waiting::default();
        assert_eq!(waiting.poll(start), Next::Join);
        waiting.handle_taken(start, 2 * SECOND, timeout);
        assert_eq!(waiting.poll(start), Next::Wait(start + timeout));
        assert_eq!(waiting.poll(start + 3 * SECOND), Next::Wait(start + timeout), "nothing was heard");
        assert_eq!(waiting.poll(start + timeout), Next::GiveUp);
        waiting.handle_heard();
        assert!(waiting.heard());
        assert_eq!(waiting.poll(start + SECOND), Next::Wait(start + 2 * SECOND));
        assert_eq!(waiting.poll(start + 2 * SECOND), Next::Join);
        assert_eq!(waiting.poll(start + timeout), Next::Join, "late, and in time");

        // Each answer begins another time.
        waiting.handle_taken(start + 3 * SECOND, 11 * SECOND, timeout);
        assert_eq!(waiting.poll(start + 3 * SECOND), Next::Wait(start + 13 * SECOND));
        assert_eq!(waiting.poll(start + 13 * SECOND), Next::GiveUp);
    }
}
