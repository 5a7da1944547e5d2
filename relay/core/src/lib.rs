//! What the relay decides, as state machines without sockets, files or a runtime. The time and random numbers are arguments.
//!
//! - [`registry`]: sessions, nameplates, and which socket is joined to which. Its head describes the order of calls.
//! - [`frames`]: what a socket's bytes mean, frame by frame.
//! - [`silence`]: when a socket that says nothing is pinged, and when it is given up.
//! - [`waiting`]: when a socket asks for a slot that another has.
//! - [`defaults`]: the settings that nobody has changed.
//! - [`ticket`]: signing and checking the tickets that admit ends.
//! - [`quota`], [`address`], [`owner`]: how many requests an address may make, and to whom sessions are charged.
//!
//! `mykube-relay` brings the sockets. Nothing here depends on the end-to-end channel.

#![warn(clippy::pedantic)]
// An `expect` here states an invariant, which no caller can break.
#![allow(clippy::missing_panics_doc)]

pub mod address;
pub mod defaults;
pub mod frames;
pub mod owner;
pub mod quota;
pub mod registry;
pub mod silence;
pub mod ticket;
pub mod waiting;
