//! What a relay must not forget, and the only SQL there is: accounts, sign-ins, organisations and their audit logs.
//!
//! The rules are `mykube-relay-accounts`'. What belongs together is done in one [`Transaction`]: a rule gets the row it is
//! about, and what it gives back is kept, or nothing is. Rows of an organisation are reached by what takes the organisation's
//! id only, and on PostgreSQL the database sees to that too (`isolation`).

mod accounts;
mod address;
mod agents;
mod backup;
mod database;
mod device_codes;
mod email_codes;
mod error;
mod families;
mod file;
mod invitations;
mod isolation;
mod organisation;
mod room;
mod sessions;
mod sign_ins;
mod sweep;
mod transaction;
mod web;

pub use accounts::{Account, Identity};
pub use address::{Database, DatabaseUrlError, Postgres};
pub use agents::{Agent, RelayKey};
pub use backup::{BackupError, back_up};
pub use database::Store;
pub use error::StoreError;
pub use organisation::{Actor, AgentActor, AuditLine, Organisation};
pub use sessions::Session;
pub use sign_ins::SignIn;
pub use sweep::{AUDIT, MARGIN};
pub use transaction::Transaction;

#[cfg(test)]
mod tests;
