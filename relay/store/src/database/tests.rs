//! Opening it. These are about SQLite's file.

use std::path::Path;

use mykube_relay_accounts::{email::Email, sign_up::Invitation, time::UnixTime};

use super::*;

fn sqlite(dir: &tempfile::TempDir) -> Database {
    Database::Sqlite(dir.path().join("data/a relay #1?.db"))
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

#[tokio::test]
async fn beside_a_running_relay_another_program_writes_and_changes_no_tables() {
    let dir = tempfile::tempdir().unwrap();
    let place = sqlite(&dir);
    assert!(Store::open_beside(&place).await.is_err(), "nothing is made");
    let store = Store::open(&place).await.unwrap();
    let beside = Store::open_beside(&place).await.unwrap();
    let ada: Email = "ada@example.com".parse().unwrap();
    let now = UnixTime::from_millis(1_800_000_000_000);
    let mut transaction = beside.begin().await.unwrap();
    transaction.invite(&Invitation::new(ada.clone(), true, now)).await.unwrap();
    transaction.commit().await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    assert!(transaction.invitation(&ada).await.unwrap().unwrap().operator);
    drop(transaction);
    let older = "DELETE FROM _sqlx_migrations WHERE version = 3";
    sqlx::query(older).execute(&store.pool).await.unwrap();
    let error = Store::open_beside(&place).await.err().unwrap();
    assert!(matches!(error, StoreError::Older), "{error}");
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 SELECT 99, description, success, checksum, execution_time FROM _sqlx_migrations WHERE version = 1";
    sqlx::query(newer).execute(&store.pool).await.unwrap();
    let error = Store::open_beside(&place).await.err().unwrap();
    assert!(matches!(error, StoreError::Newer { version: 99 }), "{error}");
}
