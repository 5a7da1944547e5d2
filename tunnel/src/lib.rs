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

pub mod endpoint;
pub mod handshake;
pub mod pairing;
pub mod session;
pub mod test_api;

mod congestion;
mod flow;
mod key;
mod message;
mod record;
mod resume;
mod schedule;
mod stream;
mod time;

pub use handshake::{Established, HandshakeError};
pub use mykube_protocol as protocol;
pub use session::{Config, Event, Session, SessionError};
pub use time::Time;
