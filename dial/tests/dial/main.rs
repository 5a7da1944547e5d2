//! Reaching the relay, and what happens where something else is there, or in between.
#![allow(clippy::unwrap_used)]

mod api;
mod proxies;
mod support;
mod tls;
mod websocket;
