//! The relay over real sockets.

mod forwarding;
mod limits;
mod operations;
mod pairing;
mod published;
mod support;
