//! The one place where a tunnel meets a socket: what drives a channel over connections to the relay, and copies between its streams
//! and connections here.

pub mod channel;
pub mod clock;
pub mod copy;
mod drive;
pub mod pair;
mod path;
mod reconnect;
mod route;
mod shared;
pub mod stream;

/// The channel itself, for tests that are a hostile end of it.
#[doc(hidden)]
pub use mykube_tunnel as tunnel;

pub use channel::{Channel, End, PeerStatus};
pub use copy::{CopyError, copy};
pub use reconnect::Reconnect;
pub use stream::{ChannelStream, StreamFailed};
