//! Networks and load for the fault tests and the benchmark. No product crate uses it.
//!
//! - [`Lab`] makes network [`Namespace`]s and joins two of them by a [`Link`], a line with delay, rate and loss that is
//!   changed, cut and moved to another address while traffic runs. All of it goes when it is dropped, and what a crash
//!   left behind goes when the next [`Lab`] starts.
//! - [`Forwarder`] is a TCP or HTTP CONNECT proxy that cuts, pauses or slows connections when told, or by the clock.
//! - [`load`] makes traffic through a tunnel and measures it; [`process_stats`] reads what processes use.
//! - [`sessions`] opens sessions at a relay, many or one after another.
//! - [`sign_ins`] signs people in at a relay in dev mode.
//! - [`stand_in`] stands for kubectl and the API server in guarded mode, and passes that load through it.
//!
//! Namespaces need root. `lab/README.md` shows the same things as commands.

mod error;
mod link;
pub mod load;
mod namespace;
mod network;
pub mod process_stats;
mod proxy;
pub mod sessions;
pub mod sign_ins;
mod socket;
pub mod stand_in;
mod words;

pub use error::LabError;
pub use link::{DirectionStats, End, Link, LinkStats, Pipe, Shape};
pub use namespace::Namespace;
pub use network::Lab;
pub use proxy::{Cut, ForwardCounts, ForwardOptions, ForwardTarget, Forwarder};
pub use words::{parse_bits, parse_bytes, parse_duration};
