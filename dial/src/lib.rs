//! Reaching a host: the relay's address, proxies, TLS, one HTTP call, socket options, the WebSocket to the relay, and the same steps
//! one at a time for `mykube doctor`.
//!
//! The callers decide what passes over a connection: nothing here knows a tunnel.

pub mod api;
mod call;
mod coalescing;
mod connect;
mod cut;
mod dialer;
mod drain;
pub mod error;
pub mod fetch;
pub mod messages;
mod no_proxy;
pub mod probe;
pub mod proxy;
pub mod socket;
pub mod tls;
pub mod transport;
pub mod url;

pub use call::{RESPONSE_BODY_MAX, RESPONSE_HEAD_MAX};
pub use coalescing::Coalescing;
pub use connect::connect_tcp_via_proxy;
pub use cut::{Abort, STALLED, cut};
pub use dialer::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, DialOptions, Dialer};
pub use drain::{drain, drain_until};
pub use error::{DialError, ErrorClass};
pub use messages::SocketLost;
pub use proxy::{ProxyEnv, ProxyTarget};
pub use socket::RelaySocket;
pub use tls::Trust;
pub use transport::Transport;
pub use url::RelayUrl;
