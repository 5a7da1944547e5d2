//! Identity providers over real sockets: two independent real ones, one that lies, and a GitHub.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod forged;
mod github;
mod hostile;
mod real;
mod support;
