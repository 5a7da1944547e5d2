//! The end-to-end channel between the two ends, as pure state machines: no sockets, no clock, no runtime.
//!
//! Bytes and the time go in by `handle_*`, bytes and events come out by `poll_*`; `now` and the random source are
//! arguments. The order of calls, for every machine here:
//!
//! 1. `handle_*` with whatever arrived (a frame, a text of the relay, a timer that ran out);
//! 2. `poll_event` until nothing comes;
//! 3. `poll_transmit` until nothing comes, or until the transport takes no more;
//! 4. wait for bytes, for the application, or for `poll_timeout`.
//!
//! ```text
//! pairing::AgentPairing --\                                            /-- streams of the application
//!                          handshake -> Established -> session::Session
//! pairing::ClientPairing -/                 (record: seal and open)    \-- frames for any transport
//! ```
//!
//! A session never knows what carries it. The bytes, the key schedule and the reasons: docs/protocol.md.

#![warn(clippy::pedantic)]
// An `expect` here states an invariant, which no caller can break.
#![allow(clippy::missing_panics_doc)]

pub mod handshake;
pub mod pairing;
pub mod session;

mod flow;
mod key;
mod message;
mod pace;
mod record;
mod resume;
mod schedule;
mod stream;

pub use handshake::{Established, HandshakeError};
pub use mykube_protocol as protocol;
pub use session::{Config, Event, Session, SessionError};

use std::time::Duration;

/// A moment on a monotonic clock of the caller's choice (one that runs during suspend), in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// So many microseconds after the clock's zero.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's zero.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Entry points into the record layer for benches, fuzzing and hostile ends.
pub mod seam {
    use crate::{
        Established,
        key::ResumeKeys,
        protocol::{Role, SessionId},
        resume::Resume,
    };

    pub use crate::{
        message::is_valid as is_valid_plaintext,
        record::{Opener, RecordError, Sealer},
    };

    /// The keys of an established channel, for an end that is a test and says what it likes.
    #[must_use]
    pub fn keys(established: Established) -> (Sealer, Opener) {
        (established.sealer, established.opener)
    }

    /// One end of a channel with given traffic secrets.
    #[must_use]
    pub fn established(role: Role, client: [u8; 32], agent: [u8; 32]) -> Established {
        let (ours, theirs) = match role {
            Role::Client => (client, agent),
            Role::Agent => (agent, client),
        };
        Established {
            role,
            words: String::new(),
            verify: false,
            sealer: Sealer::from_secret(ours),
            opener: Opener::from_secret(theirs),
            resume: Resume::new(role, SessionId::from_bytes([0; 16]), ResumeKeys::from_secrets(&client, &agent)),
        }
    }
}
