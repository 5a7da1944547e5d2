//! Reaching the relay, and what happens where something else is there, or in between.
#![allow(clippy::unwrap_used)]

#[path = "dial/api.rs"]
mod api;
#[path = "dial/channel.rs"]
mod channel;
#[path = "dial/proxies.rs"]
mod proxies;
mod support;
#[path = "dial/resume.rs"]
mod resume;
#[path = "dial/tls.rs"]
mod tls;
#[path = "dial/websocket.rs"]
mod websocket;
