//! Reaching the relay, and what happens where something else is there, or in between.
#![allow(clippy::unwrap_used)]

#[path = "dial/api.rs"]
mod api;
#[path = "dial/channel.rs"]
mod channel;
#[path = "dial/ends.rs"]
mod ends;
#[path = "dial/network.rs"]
mod network;
#[path = "dial/proxies.rs"]
mod proxies;
#[path = "dial/resume.rs"]
mod resume;
mod support;
#[path = "dial/tls.rs"]
mod tls;
#[path = "dial/websocket.rs"]
mod websocket;
