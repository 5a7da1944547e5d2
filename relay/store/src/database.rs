//! Opening the database, and bringing its tables up to date.

use std::{
    fs::File,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use sqlx::{
    Any, AnyPool, Connection as _, Executor as _, Row as _,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    pool::PoolConnection,
};
use tracing::{error, info};

use crate::{address::Database, error::StoreError, file, isolation};

/// The tables, a change of them a file. One that was ever released is never edited again.
const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "accounts", include_str!("../migrations/0001_accounts.sql")),
    (2, "web", include_str!("../migrations/0002_web.sql")),
    (3, "mail", include_str!("../migrations/0003_mail.sql")),
    (4, "pages", include_str!("../migrations/0004_pages.sql")),
    (5, "agents", include_str!("../migrations/0005_agents.sql")),
];

/// SQLite has one writer at a time anyway, and what a sign-in reads is read in microseconds.
const SQLITE_CONNECTIONS: u32 = 1;
/// A server has many writers; what they wait for is the network and the disk. A hundred, its default, are for several nodes.
const POSTGRES_CONNECTIONS: u32 = 8;
/// How long a call waits for those before it, and for a server.
const WAIT: Duration = Duration::from_secs(10);
const POSTGRES_WAIT: Duration = Duration::from_secs(5);
/// WAL: readers (a backup, say) do not hold up the writer. FULL: what was answered survives a power cut. SQLite's manual:
/// "In WAL mode with synchronous=FULL, the WAL file is synchronized after each transaction commit".
const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";
/// No statement here takes a second; one that hangs gives its connection back, as does a transaction that nobody ends.
const LIMITS: &str = "SET statement_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'";

/// An open database. What it is asked waits for its turn, and is dropped with whoever asked.
pub struct Store {
    pub(crate) pool: AnyPool,
    pub(crate) is_postgres: bool,
    pub(crate) is_down: AtomicBool,
    /// No other program has the file meanwhile.
    _lock: Option<File>,
}

impl Store {
    /// Opens it, or makes it; brings its tables up to date.
    ///
    /// # Errors
    /// Another program has it, a newer one has changed it, its role could see everybody's rows, or it cannot be used.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        install_drivers();
        let (lock, pool) = match database {
            Database::Sqlite(path) => {
                let lock = file::lock(path)?;
                let pool = AnyPoolOptions::new().max_connections(SQLITE_CONNECTIONS).acquire_timeout(WAIT);
                let pool = connect(pool, PRAGMAS, database.options()?).await?;
                migrate(&pool).await?;
                (Some(lock), pool)
            }
            Database::Postgres(_) => {
                prepare_postgres(database.options()?).await?;
                let pool = AnyPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).acquire_timeout(POSTGRES_WAIT);
                (None, connect(pool, LIMITS, database.options()?).await?)
            }
        };
        info!(%database, "database open");
        let is_postgres = matches!(database, Database::Postgres(_));
        Ok(Self { pool, is_postgres, is_down: AtomicBool::new(false), _lock: lock })
    }

    /// Opens that of a relay which may be running: its lock is left alone, and so are its tables. What is written here the relay
    /// sees at once, and of SQLite's file one of them waits for the other (5 s at most, sqlx's `busy_timeout`).
    ///
    /// # Errors
    /// It is not there, its tables are another program's, or it cannot be used.
    pub async fn open_beside(database: &Database) -> Result<Self, StoreError> {
        install_drivers();
        let settings = match database {
            Database::Sqlite(path) => {
                file::check(path)?;
                PRAGMAS
            }
            Database::Postgres(_) => LIMITS,
        };
        let pool = AnyPoolOptions::new().max_connections(1).acquire_timeout(WAIT);
        let pool = connect(pool, settings, database.options()?).await?;
        check_version(&pool).await?;
        let is_postgres = matches!(database, Database::Postgres(_));
        Ok(Self { pool, is_postgres, is_down: AtomicBool::new(false), _lock: None })
    }

    /// Writes out what is under way, and lets go of the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A connection, for what reads one thing.
    ///
    /// # Errors
    /// The database gives no answer: at once, where that is known.
    pub(crate) async fn connection(&self) -> Result<PoolConnection<Any>, StoreError> {
        if self.is_down.load(Relaxed) {
            return Err(StoreError::Unavailable("it gave none a moment ago".to_owned()));
        }
        let connection = self.pool.acquire().await;
        // Where all connections are there and busy, it is there.
        if connection.is_err() && self.is_postgres && self.pool.size() < POSTGRES_CONNECTIONS {
            self.note(connection.as_ref().err().map(ToString::to_string));
        }
        Ok(connection?)
    }

    /// Whether it answered when it was asked last.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.is_down.load(Relaxed)
    }

    /// Asks it. Says so when it has gone away or come back; meanwhile what needs a [`Transaction`](crate::Transaction) fails
    /// at once, instead of waiting for it call by call. To be called every few seconds where the database is a server.
    pub async fn check(&self) {
        let asked = tokio::time::timeout(POSTGRES_WAIT, sqlx::query("SELECT 1").execute(&self.pool)).await;
        let error = match asked {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it does not answer in time".to_owned()),
        };
        self.note(error);
    }

    /// Why it does not answer, or that it does.
    fn note(&self, error: Option<String>) {
        match (self.is_down.swap(error.is_some(), Relaxed), error) {
            (false, Some(error)) => error!(error, "the database is gone; what needs none goes on"),
            (true, None) => info!("the database is back"),
            _ => {}
        }
    }

    /// Whether it is a server, which may go away and come back.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.is_postgres
    }
}

/// What sqlx wants once.
pub(crate) fn install_drivers() {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
}

async fn connect(
    pool: AnyPoolOptions,
    settings: &'static str,
    options: AnyConnectOptions,
) -> Result<AnyPool, StoreError> {
    let pool =
        pool.after_connect(move |connection, _| Box::pin(async move { connection.execute(settings).await.map(drop) }));
    // SQLite ends a transaction itself when the disk is full: sqlx still sees one then, and would for ever.
    let pool = pool.before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
    Ok(pool.connect_with(options).await?)
}

/// On a connection of its own, as a change of a large table may take its time. Of relays that start at once one does it; the
/// others wait for its advisory lock, which ends with its connection.
async fn prepare_postgres(options: AnyConnectOptions) -> Result<(), StoreError> {
    let pool = AnyPoolOptions::new().max_connections(1).acquire_timeout(WAIT).connect_with(options).await?;
    isolation::check_role(&pool).await?;
    migrate(&pool).await?;
    isolation::isolate(&pool).await?;
    pool.close().await;
    Ok(())
}

/// Refuses tables that this program did not make.
async fn check_version(pool: &AnyPool) -> Result<(), StoreError> {
    const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version DESC";
    let rows = sqlx::query(APPLIED).fetch_all(pool).await.map_err(|error| StoreError::Foreign(error.to_string()))?;
    let applied = rows.iter().map(|row| row.try_get("version")).collect::<Result<Vec<i64>, _>>()?;
    let known = |version: &i64| MIGRATIONS.iter().any(|(known, ..)| known == version);
    if let Some(version) = applied.iter().find(|version| !known(version)) {
        return Err(StoreError::Newer { version: *version });
    }
    if applied.len() < MIGRATIONS.len() { Err(StoreError::Older) } else { Ok(()) }
}

async fn migrate(pool: &AnyPool) -> Result<(), StoreError> {
    let migrations = MIGRATIONS.map(|(version, description, sql)| {
        Migration::new(version, description.into(), MigrationType::Simple, sqlx::SqlStr::from_static(sql), false)
    });
    Migrator::with_migrations(migrations.into()).run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            StoreError::Newer { version }
        }
        MigrateError::VersionMismatch(version) => StoreError::Foreign(format!("version {version} is another one")),
        MigrateError::Execute(error) => error.into(),
        MigrateError::ExecuteMigration(error, version) => {
            StoreError::Unavailable(format!("in the change to version {version}: {error}"))
        }
        other => StoreError::Foreign(other.to_string()),
    })
}

#[cfg(test)]
mod tests;
