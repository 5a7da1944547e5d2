//! Reaching the relay, and the errors where something else answers, or stands in between.
#![allow(clippy::unwrap_used)]

mod api;
mod proxies;
mod support;
mod tls;
mod websocket;
