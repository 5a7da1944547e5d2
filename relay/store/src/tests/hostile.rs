//! Processes that are killed, servers that go away, copies that are put back.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::*;
use crate::{BackupError, back_up};

/// Of SQLite's file format, section 4: a log has this header, and before each page one of these.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// What a process leaves behind that is killed is some beginning of what it wrote: here, every one there is.
#[tokio::test]
async fn changes_of_tables_that_are_killed_at_any_page_are_done_or_were_never_begun() {
    let place = Place::sqlite();
    let store = place.open().await;
    let file = place.dir.path().join("relay.db");
    let (pages, log) = (fs::read(&file).unwrap(), fs::read(file.with_extension("db-wal")).unwrap());
    let page = usize::from(u16::from_be_bytes([pages[16], pages[17]]));
    let tables = async |store: &Store| {
        let all = "SELECT COALESCE(sql, '') AS sql FROM sqlite_master ORDER BY name";
        let rows = sqlx::query(all).fetch_all(&store.pool).await.unwrap();
        rows.iter().map(|row| sqlx::Row::get::<String, _>(row, "sql")).collect::<Vec<_>>()
    };
    let whole = tables(&store).await;
    let mut cuts: Vec<_> = (LOG_HEADER..=log.len()).step_by(FRAME_HEADER + page).collect();
    assert!(cuts.len() > 2 * super::migrations(), "each change is some pages");
    // In the middle of a page, and of the header.
    cuts.extend([0, LOG_HEADER / 2, log.len() - page / 2]);
    for cut in cuts {
        let killed = Place::sqlite();
        let file = killed.dir.path().join("relay.db");
        fs::write(&file, &pages).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(file.with_extension("db-wal"), &log[..cut]).unwrap();
        let store = killed.open().await;
        assert_eq!(tables(&store).await, whole, "killed after {cut} bytes");
        sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_copy_is_made_beside_a_running_relay_and_can_be_put_in_its_place() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::sqlite();
    let store = place.open().await;
    let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
    // Something is half done meanwhile: it is not in the copy, and does not hold it up.
    let mut transaction = store.begin().await.unwrap();
    transaction.account_of(&identity("bob"), NOW).await.unwrap();
    let copy = place.dir.path().join("copy.db");
    back_up(&place.database, &copy).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(matches!(back_up(&place.database, &copy).await, Err(BackupError::Exists(_))));
    let left = fs::read_dir(&place.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.contains("backup") || name.contains("copy")).count(), 1, "and nothing else");

    let restored = Store::open(&Database::Sqlite(copy)).await.unwrap();
    assert_eq!(restored.account(alice.id).await.unwrap(), Some(alice.clone()));
    assert_eq!(restored.organisation(alice.organisation).audit(10).await.unwrap().len(), 1);
    let count = sqlx::query("SELECT COUNT(*) AS count FROM accounts").fetch_one(&restored.pool).await.unwrap();
    assert_eq!(sqlx::Row::get::<i64, _>(&count, "count"), 1, "what was not kept yet is not there");

    let none = Database::Sqlite(place.dir.path().join("none.db"));
    let to = place.dir.path().join("other.db");
    for (from, to) in [(&none, &to), (&place.database, &PathBuf::from("/nonexistent/copy.db"))] {
        assert!(back_up(from, to).await.is_err());
        assert!(!to.exists());
    }
    assert!(!place.dir.path().join("none.db").exists(), "a database that is not there is not made");
    let server = Database::parse("postgres://u:hunter2@db.example/relay").unwrap();
    let told = back_up(&server, &to).await.unwrap_err().to_string();
    assert!(told.contains("pg_dump") && !told.contains("hunter2"), "{told}");
}

/// A PostgreSQL of a test's own, to be stopped.
struct OwnServer(PathBuf);

impl OwnServer {
    fn script(&self, command: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/postgres");
        let status = Command::new(script).arg(command).arg(&self.0).status().unwrap();
        assert!(status.success(), "scripts/postgres {command}");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.script("remove");
    }
}

#[tokio::test]
async fn a_server_that_goes_away_is_told_at_once_and_comes_back_by_itself() {
    use std::os::unix::fs::PermissionsExt as _;

    if Place::postgres().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The server's user is another one.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let server = OwnServer(dir.path().join("server"));
    server.script("make");
    let port = fs::read_to_string(server.0.join("port")).unwrap();
    let sql = "CREATE ROLE relay LOGIN PASSWORD 'canary'; CREATE SCHEMA relay AUTHORIZATION relay";
    let socket = server.0.join("socket");
    let mut psql = Command::new("psql");
    psql.args(["-qX", "-U", "postgres", "-p", port.trim(), "-c", sql]).arg("-h").arg(&socket);
    assert!(psql.status().unwrap().success());
    let url = format!("postgres://relay:canary@127.0.0.1:{}/postgres", port.trim());
    let store = Store::open(&Database::parse(&url).unwrap()).await.unwrap();
    let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;

    let half = {
        let mut transaction = store.begin().await.unwrap();
        transaction.account_of(&identity("bob"), NOW).await.unwrap();
        transaction
    };
    server.script("stop");
    assert!(matches!(half.commit().await, Err(StoreError::Unavailable(_))), "what is under way fails");
    store.check().await;
    assert!(!store.is_up());
    // Said without asking: it is known.
    for failed in [store.begin().await.err(), store.account(alice.id).await.err()] {
        let told = failed.unwrap().to_string();
        assert!(told.contains("a moment ago"), "{told}");
    }
    server.script("start");
    store.check().await;
    assert!(store.is_up());
    assert_eq!(store.account(alice.id).await.unwrap(), Some(alice));
    sign_in(&store, "bob", SignInId::from_bytes([2; 16])).await;
}
