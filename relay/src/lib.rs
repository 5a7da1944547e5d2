//! The relay: joins two WebSockets it cannot read.
//!
//! A connection passes `server` (accept, PROXY header, TLS) to `http` (the API, tickets, the upgrade) to `ws` (whole
//! frames from one socket to the other). Who may do what is decided in [`mykube_relay_core`], state machines without I/O;
//! `hub` is the one place where the registry meets sockets. What no path of the relay's own answers goes to `fallback`, if
//! there is one. Which thread serves which socket is decided in `workers`. Nothing here
//! depends on the end-to-end channel.

mod address;
mod certificate;
pub mod cli;
mod config;
mod connections;
mod directory;
mod fallback;
mod http;
mod hub;
mod key_file;
mod listen;
mod lock;
pub mod logs;
mod metrics;
mod outlet;
mod pool;
pub mod private_file;
mod proxy_header;
mod server;
mod signals;
mod socket;
mod stall;
mod stream;
mod tls;
mod workers;
mod ws;

pub use cli::{Event, RelayArgs, run};
pub use config::{Config, TlsFiles};
pub use fallback::{Accepted, Accepting, Answering, Arrival, Fallback, Serve, Transport};
pub use ipnet::IpNet;
pub use key_file::KeyError;
pub use mykube_relay_core::registry::Limits;
pub use server::{Relay, RelayError};
pub use socket::Socket;
pub use tls::TlsError;
