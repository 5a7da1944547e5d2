//! A relay's HTTP interface for people and programs: signing in and out, tokens, who one is.
//!
//! A request comes to [`Portal::answer`] (`answer`): over what, from where, of which page (`origin`), how often (`limits`).
//! Then axum's router has it: `auth` are the calls of signing in, `v1` and `agents` are our own. A WebSocket comes to
//! [`Portal::accept`]; `control` are those of agents. What a token is worth is decided in
//! [`mykube_relay_accounts`], what is kept is kept by [`mykube_relay_store`].

mod agents;
mod answer;
mod arrival;
mod auth;
mod control;
mod cookies;
mod failure;
mod health;
mod limits;
mod origin;
mod portal;
mod settings;
mod shared;
mod socket;
mod tokens;
mod url;
mod v1;

#[cfg(test)]
mod tests;

pub use arrival::Arrival;
pub use portal::Portal;
pub use settings::{BootScope, Dev, Settings};
pub use socket::{Serve, Stream, is_socket};
pub use url::{PublicUrl, PublicUrlError};
