//! Guarded mode with an API server in this process: what is forwarded, refused, and logged.
#![allow(clippy::unwrap_used, reason = "helpers that fail should stop their test")]

mod api;
mod audit;
mod bypass;
#[path = "../../../upstream/tests/common/mod.rs"]
mod common;
mod credentials;
mod cut;
mod differential;
mod endless;
mod forwarding;
mod heads;
mod identity;
mod limits;
mod lines;
mod raw;
mod recording;
mod setup;
mod ways;
