//! A relay's HTTP interface for people and programs: signing in and out, tokens, who one is.
//!
//! A request comes to [`Portal::answer`] (`answer`): over what, from where, of which page (`origin`), how often (`limits`).
//! Then axum's router has it: `auth` are the calls of signing in, `v1` and `agents` are our own, `pages` are for people in
//! browsers. A WebSocket comes to [`Portal::accept`]; `control` are those of agents. What a token is worth is decided in
//! [`mykube_relay_accounts`], what is kept is kept by [`mykube_relay_store`].

mod again;
mod agents;
mod answer;
mod arrival;
mod audit;
mod auth;
mod control;
mod cookies;
mod failure;
mod health;
mod limits;
mod mail;
mod origin;
mod pages;
mod portal;
mod settings;
mod shared;
mod socket;
mod tokens;
mod url;
mod v1;
mod when;

#[cfg(test)]
mod tests;

pub use arrival::Arrival;
pub use mail::{Mail, MailError};
pub use mykube_relay_accounts::sign_up::SignUp;
pub use portal::{Portal, system_time};
pub use settings::{BootScope, Dev, Settings};
pub use socket::{Serve, Stream, is_socket};
pub use url::{PublicUrl, PublicUrlError};
