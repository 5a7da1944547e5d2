//! A copy of the database while a relay uses it.

use std::{fs, io, path::Path};

use sqlx::{AnyPool, Row as _, any::AnyPoolOptions};

use crate::{address::Database, database::install_drivers};

/// Why there is no backup. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// PostgreSQL has its own.
    #[error("a PostgreSQL database is backed up by its own program: pg_dump --format=custom --file=FILE {0}")]
    Server(String),
    /// It is never written over.
    #[error("{0} is there already: name a file that is not")]
    Exists(String),
    /// Of the file that is made, or of its directory.
    #[error("cannot write the backup {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The database, or the copy of it.
    #[error("cannot back up {database}: {source}")]
    Database {
        /// Which.
        database: String,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// The copy is not whole.
    #[error("the copy of {0} is not whole, and was removed: {1}")]
    Damaged(String, String),
}

/// Writes a whole, compact copy of the database as it is at one moment to a file that is not there yet (mode 0600), and reads
/// it once. A relay may use the database meanwhile; it is not held up.
///
/// # Errors
/// There is none, the file is there, or it cannot be written.
pub async fn back_up(database: &Database, to: &Path) -> Result<(), BackupError> {
    let Database::Sqlite(from) = database else { return Err(BackupError::Server(database.to_string())) };
    let file = |source| BackupError::File { path: to.display().to_string(), source };
    let failed = |source| BackupError::Database { database: database.to_string(), source };
    if fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Exists(to.display().to_string()));
    }
    // SQLite would make one.
    fs::metadata(from).map_err(|source| failed(sqlx::Error::Io(source)))?;
    let directory = to.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // 0600, under a name that nobody knows, and gone if this fails.
    let draft = tempfile::Builder::new().prefix(".backup.").tempfile_in(directory).map_err(file)?;
    let path = draft.path().to_str().ok_or_else(|| file(io::Error::other("its path is not UTF-8")))?;
    let source = open(database).await.map_err(failed)?;
    let copied = sqlx::query("VACUUM INTO $1").bind(path.to_owned()).execute(&source).await;
    source.close().await;
    copied.map_err(failed)?;
    let copy = open(&Database::Sqlite(draft.path().to_owned())).await.map_err(failed)?;
    let checked = check(&copy).await;
    copy.close().await;
    let said = checked.map_err(failed)?;
    if said != "ok" {
        return Err(BackupError::Damaged(database.to_string(), said));
    }
    draft.as_file().sync_all().map_err(file)?;
    draft.persist_noclobber(to).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(to.display().to_string()),
        _ => file(error.error),
    })?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(file)
}

async fn open(database: &Database) -> Result<AnyPool, sqlx::Error> {
    install_drivers();
    let options = database.options().map_err(|error| sqlx::Error::Configuration(error.into()))?;
    AnyPoolOptions::new().max_connections(1).connect_with(options).await
}

/// `ok`, or what is wrong with it.
async fn check(copy: &AnyPool) -> Result<String, sqlx::Error> {
    const CHANGES: &str = "SELECT COUNT(*) AS count FROM _sqlx_migrations WHERE success";
    let changes: i64 = sqlx::query(CHANGES).fetch_one(copy).await?.try_get("count")?;
    if changes == 0 {
        return Ok("it has no tables of a relay".to_owned());
    }
    sqlx::query("PRAGMA integrity_check").fetch_one(copy).await?.try_get(0)
}
