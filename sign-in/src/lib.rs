//! A sign-in at a relay, on this machine: signing in and out, who one is, and a token that works now.
//!
//! There are four ways in: a browser on this machine ([`browser`]), one on another ([`device`]), a token that was made elsewhere,
//! and a dev relay's secret. Everything lies in one directory of the user's ([`home`]): `config.toml` remembers relay and organisation, and each relay has a directory
//! with this machine's key for it, the credentials, and a lock. Whoever needs a token takes the lock, so that of all processes
//! of a user one at a time has it replaced ([`session`]).
//!
//! An agent that has a name at a relay has a directory of its own for that ([`agent`]).

pub mod agent;
mod agents;
pub mod browser;
mod calls;
mod config;
mod credentials;
pub mod device;
mod error;
mod files;
mod given;
pub mod home;
mod key;
mod loopback;
pub mod session;

pub use agent::AgentState;
pub use browser::BrowserSignIn;
pub use config::{Config, remembered};
pub use device::DeviceSignIn;
pub use error::SignInError;
pub use given::TOKEN_MAX;
pub use home::{Home, State};
pub use session::{Account, Session, Standing};
