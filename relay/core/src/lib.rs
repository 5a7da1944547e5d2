//! What the relay decides, without the relay: no sockets, no files, no runtime. The time and random numbers are arguments.
//!
//! - [`registry`]: sessions, nameplates, and which socket is joined to which. Its order of calls is said there.
//! - [`frames`]: what a socket's bytes mean, frame by frame.
//! - [`silence`]: when a socket that says nothing is asked, and when it is given up.
//! - [`ticket`]: signing what admits an end, and checking it.
//! - [`quota`], [`address`], [`owner`]: how much may be asked, and who is charged for what.
//!
//! `mykube-relay` brings the sockets. Nothing here depends on the end-to-end channel.

#![warn(clippy::pedantic)]
// An `expect` here states an invariant, which no caller can break.
#![allow(clippy::missing_panics_doc)]

pub mod address;
pub mod frames;
pub mod owner;
pub mod quota;
pub mod registry;
pub mod silence;
pub mod ticket;
