//! Why the database gives no answer.

use std::{io, path::PathBuf};

/// What failed. It holds no value of a row.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A second program would write into the first one's.
    #[error("another relay uses the database {path}: stop it, or give this one a [database] url of its own", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Its directory, or the lock beside it.
    #[error("cannot use the database {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer program changed its tables.
    #[error(
        "a newer mykube relay has changed the database (to version {version}): run that version, or restore a backup made before"
    )]
    Newer {
        /// Of its tables.
        version: i64,
    },
    /// Row-level security is nothing to it.
    #[error(
        "the database's role {name} is a superuser or has BYPASSRLS, to which one organisation's rows are as good as another's: \
         give the relay a role of its own (CREATE ROLE mykube LOGIN; CREATE DATABASE mykube OWNER mykube)"
    )]
    Role {
        /// What it is called.
        name: String,
    },
    /// The relay has not been started since this program came.
    #[error("the tables of the database are older than this program: start the relay with it, then try again")]
    Older,
    /// It was not made by this program.
    #[error("the tables of the database are not those of a mykube relay ({0}): restore a backup")]
    Foreign(String),
    /// It cannot be read or written now: full disk, missing file, no connection.
    #[error("the database gives no answer: {0}")]
    Unavailable(String),
    /// Somebody else changed what was read before something was written, or began the same at the same time. Nothing is kept:
    /// whoever does it all again meets what is so now.
    #[error("what this was about has changed meanwhile: try again")]
    Changed,
    /// A row is not what this program writes.
    #[error("a row of the database is damaged ({0}): restore a backup")]
    Damaged(&'static str),
}

/// PostgreSQL's serialization_failure and deadlock_detected (its manual, appendix A).
const AGAIN: [&str; 2] = ["40001", "40P01"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let is_changed = error.as_database_error().is_some_and(|error| {
            let again = error.code().is_some_and(|code| AGAIN.contains(&&*code));
            again || error.is_unique_violation() || error.is_foreign_key_violation()
        });
        if is_changed { Self::Changed } else { Self::Unavailable(error.to_string()) }
    }
}
