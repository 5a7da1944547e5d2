//! What a relay must not forget, and the only SQL there is: accounts, sign-ins, organisations and their audit logs.
//!
//! The rules are `mykube-relay-accounts`'. What belongs together is done in one [`Transaction`]: a rule gets the row it is
//! about, and what it gives back is kept, or nothing is. Rows of an organisation are reached by [`Store::organisation`] and
//! [`Transaction::record`] only, which take the organisation's id.

mod accounts;
mod agents;
mod database;
mod device_codes;
mod error;
mod families;
mod organisation;
mod sign_ins;
mod sweep;
mod transaction;

pub use accounts::{Account, Identity};
pub use agents::{Agent, RelayKey};
pub use database::{Database, DatabaseUrlError, Store};
pub use error::StoreError;
pub use organisation::{Actor, AgentActor, AuditLine, Organisation};
pub use sign_ins::SignIn;
pub use sweep::{AUDIT, MARGIN};
pub use transaction::Transaction;

#[cfg(test)]
mod tests;
