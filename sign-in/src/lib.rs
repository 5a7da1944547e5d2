//! A sign-in at a relay, on this machine: signing in and out, who one is, and a token that works now.
//!
//! Everything lies in one directory of the user's ([`home`]): `config.toml` remembers the relay, and each relay has a directory
//! with this machine's key for it, the credentials, and a lock. Whoever needs a token takes the lock, so that of all processes
//! of a user one at a time has it replaced ([`session`]).
//!
//! An agent that has a name at a relay has a directory of its own for that ([`agent`]).

pub mod agent;
mod agents;
mod calls;
mod config;
mod credentials;
mod error;
mod files;
pub mod home;
mod key;
pub mod session;

pub use agent::AgentState;
pub use config::remembered_relay;
pub use error::SignInError;
pub use home::{Home, State};
pub use session::{Account, Session};
