//! The relay as relying party: where it sends somebody to sign in, and what it believes of what comes back.
//!
//! A [`RelyingParty`] stands for one `[[provider]]` of the configuration. It gives the address of the provider's page
//! ([`RelyingParty::authorization_url`]), redeems the code that comes back with the [`Callback`]
//! ([`RelyingParty::redeem`]), and judges ID tokens that programs hand in ([`Providers::verify_id_token`]). What it
//! gives is a [`Person`](mykube_relay_accounts::identity::Person): the rules of `relay/accounts`, applied to what the
//! provider said.
//!
//! The time and what is random are arguments. No page, no cookie and no row of a sign-in is known here.
//!
//! What is believed, and what is not:
//! - The issuer is compared byte for byte, in the discovery document, in the answer of the authorisation endpoint
//!   (RFC 9207) and in the ID token. Google alone has a second name, `accounts.google.com`.
//! - Every call is https, or stays on this machine; no redirect is followed; time and size are bounded (`web.rs`).
//! - A key signs with the algorithms of its own kind, and with the one that it names; never HMAC, never none (`keys.rs`).
//! - An address counts where the provider says so with `email_verified: true`, and proves something only in the
//!   provider's `email_domains`; Microsoft's never does (`relay/accounts`, `identity.rs`).

#![warn(clippy::pedantic)]

mod address;
mod cached;
mod callback;
mod discovery;
mod error;
mod github;
mod id_token;
mod keys;
mod open_id;
mod party;
mod providers;
mod token_call;
mod web;

pub use address::InvalidAddress;
pub use cached::{DOCUMENT_LIFE, REFETCH_AFTER, RETRY_AFTER};
pub use callback::{Callback, Code, InvalidCallback, Outcome};
pub use error::{Call, Fault, ProviderError, SettingError};
pub use id_token::{IdTokenError, LEEWAY, TOKEN_MAX};
pub use keys::KEYS_MAX;
pub use party::{RelyingParty, Settings};
pub use providers::Providers;
pub use token_call::ClientSecret;
pub use web::{CALL_LIMIT, Web};
