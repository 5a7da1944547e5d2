//! One node of a relay: what carries sessions, and, where `relay.toml` says so, what knows people.
//!
//! Without `[accounts]` in the file, or without a file, nothing of the second is made: the relay is [`mykube_relay`] alone.

mod accounts;
mod cli;
mod config;
mod keys;

pub use cli::{NodeArgs, NodeCommand, NodeError, run};
pub use config::{ConfigError, Problem};
