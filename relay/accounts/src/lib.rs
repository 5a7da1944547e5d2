//! Who may do what at the relay, without the relay: no sockets, no files, no database, no runtime. The time
//! ([`UnixTime`](time::UnixTime)) and random numbers are arguments. What must last is a row that a rule is given and gives
//! back; the store keeps it, in one transaction around the rule.

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
pub mod provider_state;
pub mod refresh;
pub mod return_path;
pub mod secret;
pub mod sign_in;
pub mod statement;
pub mod time;
pub mod token;
