//! Who may do what at the relay, without the relay: no sockets, no files, no database, no runtime. The time
//! ([`UnixTime`](time::UnixTime)) and random numbers are arguments. What must last is a row that a rule is given and gives
//! back; the store keeps it, in one transaction around the rule.
//!
//! - [`keys`], [`keyed_hash`]: the relay's secrets, what is derived of them, and what is kept of what people show.
//! - [`jwt`]: access tokens, in four classes, and what is denied.
//! - [`refresh`], [`statement`]: how a sign-in goes on, and what its machine signs.
//! - Ways to sign in: [`provider_state`], [`login_code`] with [`pkce`], [`device_code`], [`email_code`]; [`return_path`] is
//!   where a browser goes then.
//! - [`identity`], [`email`], [`name`], [`id`]: who somebody is, and what is called how.
//! - [`sign_up`], [`sign_in`], [`portal_session`]: who is let in, and what that lets them do.
//! - [`token`]: tokens of apps and agents; [`relay_key`]: the key that an agent shows beside its own.
//! - [`limits`]: how often all that may be tried.
//!
//! No secret has a `Debug` that shows it, and what holds one is wiped on drop.

#![warn(clippy::pedantic)]
// An `expect` here states an invariant, which no caller can break.
#![allow(clippy::missing_panics_doc)]

pub mod device_code;
pub mod email;
pub mod email_code;
pub mod id;
pub mod identity;
pub mod jwt;
pub mod keyed_hash;
pub mod keys;
pub mod limits;
pub mod login_code;
pub mod name;
pub mod pkce;
pub mod portal_session;
pub mod provider_state;
pub mod refresh;
pub mod relay_key;
pub mod return_path;
pub mod secret;
pub mod sign_in;
pub mod sign_up;
pub mod statement;
pub mod time;
pub mod token;
