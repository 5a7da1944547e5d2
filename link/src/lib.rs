//! The one place where a tunnel meets a socket: reaching the relay, through proxies and TLS, and moving bytes.

pub mod api;
pub mod channel;
pub mod clock;
mod connect;
pub mod copy;
mod cut;
pub mod dial;
mod drive;
pub mod error;
mod exchange;
pub mod fetch;
mod filling;
mod no_proxy;
pub mod pair;
mod path;
pub mod probe;
pub mod proxy;
mod rejoin;
mod route;
mod shared;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod transport;
pub mod url;

/// The channel itself, for tests that are a hostile end of it.
#[doc(hidden)]
pub use mykube_tunnel as tunnel;

pub use channel::{Channel, End, Status};
pub use copy::{CopyError, copy, drain, drain_until};
pub use cut::{Abort, cut};
pub use dial::{DialOptions, Dialer};
pub use error::{DialError, ErrorClass};
pub use exchange::{RESPONSE_BODY_MAX, RESPONSE_HEAD_MAX};
pub use filling::Filling;
pub use proxy::{ProxyEnv, ProxyTarget, connect_tcp_via_proxy};
pub use rejoin::Rejoin;
pub use socket::RelaySocket;
pub use stream::{ChannelStream, StreamFailed};
pub use tls::Trust;
pub use transport::Transport;
pub use url::RelayUrl;
