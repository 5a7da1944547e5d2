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
    /// It was not made by this program.
    #[error("the tables of the database are not those of a mykube relay ({0}): restore a backup")]
    Foreign(String),
    /// It cannot be read or written now: full disk, missing file, no connection.
    #[error("the database gives no answer: {0}")]
    Unavailable(String),
    /// Somebody else changed the row between reading and writing it. Nothing is kept of what was to be written.
    #[error("what this was about has changed meanwhile: try again")]
    Changed,
    /// A row is not what this program writes.
    #[error("a row of the database is damaged ({0}): restore a backup")]
    Damaged(&'static str),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
