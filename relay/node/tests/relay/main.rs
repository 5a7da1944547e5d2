//! The relay over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails where a helper of its fails")]

mod fallback;
mod forwarding;
mod legacy;
mod limits;
mod mail;
mod operations;
mod pairing;
mod program;
mod resume;
mod sign_in;
mod support;
