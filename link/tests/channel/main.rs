//! Channels over real sockets: the driver, ends that are none, and networks that go and come back.
#![allow(clippy::unwrap_used)]

mod channel;
mod ends;
mod network;
mod resume;
mod support;
