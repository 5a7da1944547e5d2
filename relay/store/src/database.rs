//! Where the database is, and opening it: one program at a time, its tables brought up to date.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Once,
    time::Duration,
};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sqlx::{
    AnyPool, ConnectOptions as _, Connection as _, Executor as _,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};
use tracing::info;

use crate::error::StoreError;

/// The tables, a change of them a file. One that was ever released is never edited again.
const MIGRATIONS: [(i64, &str, &str); 4] = [
    (1, "accounts", include_str!("../migrations/0001_accounts.sql")),
    (2, "web", include_str!("../migrations/0002_web.sql")),
    (3, "mail", include_str!("../migrations/0003_mail.sql")),
    (4, "pages", include_str!("../migrations/0004_pages.sql")),
];

/// One connection: SQLite has one writer at a time anyway, and what a sign-in reads is read in microseconds.
const CONNECTIONS: u32 = 1;
/// How long a call waits for those before it.
const WAIT: Duration = Duration::from_secs(10);
/// WAL: readers (a backup, say) do not hold up the writer. FULL: what was answered survives a power cut. SQLite's manual:
/// "In WAL mode with synchronous=FULL, the WAL file is synchronized after each transaction commit".
const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";

/// What must not stand in a path within an address.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#').add(b'"').add(b'<').add(b'>').add(b'`');

/// Where a relay's database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// One file.
    Sqlite(PathBuf),
}

/// Why an address is none of a database. It does not hold the address, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Another scheme.
    #[error("a database is `sqlite:FILE`")]
    Scheme,
    /// Designed, and not built yet.
    #[error("PostgreSQL is not built yet: use `sqlite:FILE`")]
    Postgres,
    /// No path.
    #[error("`sqlite:` wants a file: `sqlite:/var/lib/mykube/relay.db`")]
    NoFile,
}

impl Database {
    /// `sqlite:FILE` or `sqlite:///FILE`.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(url: &str) -> Result<Self, DatabaseUrlError> {
        if ["postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(DatabaseUrlError::Postgres);
        }
        let path = url.strip_prefix("sqlite:").ok_or(DatabaseUrlError::Scheme)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains([':', '?', '#']) {
            return Err(DatabaseUrlError::NoFile);
        }
        Ok(Self::Sqlite(path.into()))
    }
}

/// An open database. What it is asked waits for its turn, and is dropped with whoever asked.
pub struct Store {
    pub(crate) pool: AnyPool,
    /// No other program has the file meanwhile.
    _lock: File,
}

impl Store {
    /// Opens it, or makes it; brings its tables up to date.
    ///
    /// # Errors
    /// Another program has it, a newer one has changed it, or it cannot be used.
    pub async fn open(database: &Database) -> Result<Self, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let Database::Sqlite(path) = database;
        let lock = lock(path)?;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(WAIT)
            // A statement for which the disk has no room ends its transaction by itself, and the driver does not notice.
            .after_release(|connection, _| {
                Box::pin(async move {
                    // What was dropped is rolled back before this.
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
            .after_connect(|connection, _| Box::pin(async move { connection.execute(PRAGMAS).await.map(drop) }))
            .connect_with(options(path)?)
            .await?;
        migrate(&pool).await?;
        info!(database = %path.display(), "database open");
        Ok(Self { pool, _lock: lock })
    }

    /// Writes out what is under way, and lets go of the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Holds the file `FILE.lock`, until this program ends, however it ends.
fn lock(path: &Path) -> Result<File, StoreError> {
    let at = |source| StoreError::File { path: path.to_owned(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(at)?;
    }
    // SQLite makes files as the process may: these hold addresses of people, which are nobody else's.
    check_private(&create_private(path).map_err(at)?, path).map_err(at)?;
    // Beside the file itself, whatever link led to it: by each it is the same.
    let mut beside = path.canonicalize().map_err(at)?.into_os_string();
    beside.push(".lock");
    let file = create_private(Path::new(&beside)).map_err(at)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(at(source)),
    }
}

/// SQLite gives its other files the mode of this one.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Refuses a database that others may read, or that has a second name, by which another relay would not see the lock.
fn check_private(file: &File, path: &Path) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let text = format!("other users may read or write it (mode {mode:o}): run `chmod 600 {}`", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if metadata.nlink() > 1 {
            return Err(io::Error::other("it has another name (a hard link): remove that"));
        }
    }
    Ok(())
}

fn options(path: &Path) -> Result<AnyConnectOptions, StoreError> {
    let path = path.to_str().ok_or_else(|| StoreError::File {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "its path is not UTF-8"),
    })?;
    let url = format!("sqlite:{}", utf8_percent_encode(path, PATH));
    // Statements are the same every time; what they are given is nobody's business.
    Ok(url.parse::<AnyConnectOptions>()?.disable_statement_logging())
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
mod tests {
    use super::*;

    fn sqlite(dir: &tempfile::TempDir) -> Database {
        Database::Sqlite(dir.path().join("data/a relay #1?.db"))
    }

    #[test]
    fn an_address_is_a_file() {
        let file = |url| Database::parse(url);
        assert_eq!(file("sqlite:relay.db"), Ok(Database::Sqlite("relay.db".into())));
        for absolute in ["sqlite:/var/relay.db", "sqlite:///var/relay.db"] {
            assert_eq!(file(absolute), Ok(Database::Sqlite("/var/relay.db".into())));
        }
        assert_eq!(file("postgres://u:hunter2@db/relay"), Err(DatabaseUrlError::Postgres));
        assert_eq!(file("mysql://db"), Err(DatabaseUrlError::Scheme));
        for none in ["sqlite:", "sqlite://", "sqlite::memory:", "sqlite:a?mode=ro"] {
            assert_eq!(file(none), Err(DatabaseUrlError::NoFile), "{none}");
        }
    }

    #[tokio::test]
    async fn what_was_answered_survives_a_power_cut() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&sqlite(&dir)).await.unwrap();
        let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(&store.pool).await.unwrap();
        let (synchronous,): (i64,) = sqlx::query_as("PRAGMA synchronous").fetch_one(&store.pool).await.unwrap();
        let (keys,): (i64,) = sqlx::query_as("PRAGMA foreign_keys").fetch_one(&store.pool).await.unwrap();
        assert_eq!((mode.as_str(), synchronous, keys), ("wal", 2, 1));
    }

    #[tokio::test]
    async fn one_program_has_it_at_a_time_and_others_read_nothing() {
        use std::os::unix::fs::MetadataExt as _;

        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&sqlite(&dir)).await.unwrap();
        assert!(matches!(Store::open(&sqlite(&dir)).await, Err(StoreError::InUse { .. })));
        for file in std::fs::read_dir(dir.path().join("data")).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().mode() & 0o077, 0, "{file:?}");
        }
        store.close().await;
        drop(store);
        Store::open(&sqlite(&dir)).await.unwrap();
    }

    #[tokio::test]
    async fn a_database_by_another_name_or_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.db");
        let open = async |path: &Path| Store::open(&Database::Sqlite(path.to_owned())).await;
        let store = open(&file).await.unwrap();
        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(open(&link).await, Err(StoreError::InUse { .. })));
        store.close().await;
        drop(store);
        let hard = dir.path().join("hard.db");
        std::fs::hard_link(&file, &hard).unwrap();
        for path in [&file, &hard] {
            let told = open(path).await.err().unwrap().to_string();
            assert!(told.contains("hard link"), "{told}");
        }
        std::fs::remove_file(&hard).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let told = open(&file).await.err().unwrap().to_string();
        assert!(told.contains("mode 640") && told.contains("chmod 600"), "{told}");
    }

    #[tokio::test]
    async fn what_a_newer_program_changed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&sqlite(&dir)).await.unwrap();
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (99, 'later', TRUE, x'00', 0)";
        sqlx::query(newer).execute(&store.pool).await.unwrap();
        store.close().await;
        drop(store);
        let error = Store::open(&sqlite(&dir)).await.err().unwrap();
        assert!(matches!(error, StoreError::Newer { version: 99 }), "{error}");
    }
}
