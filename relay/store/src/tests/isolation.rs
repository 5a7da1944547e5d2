//! PostgreSQL keeps organisations apart itself, whatever a statement forgets.

use futures_util::future::join_all;
use sqlx::Row as _;

use super::*;

/// Two organisations with the same names inside: the numbers of their lines, and the actions in them, are the same.
async fn two(store: &Store) -> [Account; 2] {
    let alice = sign_in(store, "alice", SignInId::from_bytes([1; 16])).await;
    [alice, sign_in(store, "bob", SignInId::from_bytes([2; 16])).await]
}

/// What is seen of a table by a statement that forgot to say whose rows it means.
async fn seen(store: &Store, table: &str, by: Option<&Account>) -> i64 {
    let mut transaction = store.begin().await.unwrap();
    let connection = match by {
        Some(account) => transaction.of(account.organisation).await.unwrap(),
        None => transaction.connection(),
    };
    let count = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) AS count FROM {table}"));
    sqlx::query(count).fetch_one(connection).await.unwrap().try_get("count").unwrap()
}

#[tokio::test]
async fn a_statement_that_forgets_whose_rows_it_means_finds_and_changes_none_of_anothers() {
    let Some(place) = Place::postgres() else { return };
    let store = place.open().await;
    let [alice, bob] = two(&store).await;
    for table in ["audit", "members"] {
        assert_eq!(place.sql(&format!("SELECT COUNT(*) FROM {table}")), "2", "both are there");
        assert_eq!(seen(&store, table, None).await, 0, "{table}");
        for account in [&alice, &bob] {
            assert_eq!(seen(&store, table, Some(account)).await, 1, "{table}");
        }
    }
    let mut transaction = store.begin().await.unwrap();
    for change in ["UPDATE audit SET detail = ''", "DELETE FROM members"] {
        let connection = transaction.of(alice.organisation).await.unwrap();
        assert_eq!(sqlx::query(change).execute(connection).await.unwrap().rows_affected(), 1, "{change}");
    }
    const MAKE: &str = "INSERT INTO members (organisation, account, role, since) VALUES ($1, $2, 'owner', 0)";
    let make = sqlx::query(MAKE).bind(bob.organisation.to_string()).bind(alice.id.to_string());
    let refused = make.execute(transaction.of(alice.organisation).await.unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("row-level security"), "{refused}");
    drop(transaction);
    // It is this that does it, and nothing else: without it everybody sees everything.
    place.sql("ALTER TABLE audit DISABLE ROW LEVEL SECURITY; ALTER TABLE members NO FORCE ROW LEVEL SECURITY");
    for table in ["audit", "members"] {
        assert_eq!(seen(&store, table, Some(&alice)).await, 2, "{table}");
    }
    // The next start puts it back.
    store.close().await;
    let store = place.open().await;
    for table in ["audit", "members"] {
        assert_eq!(seen(&store, table, Some(&alice)).await, 1, "{table}");
    }
}

#[tokio::test]
async fn each_table_of_an_organisations_rows_is_locked_for_its_owner_too() {
    let Some(place) = Place::postgres() else { return };
    drop(place.open().await);
    let locked = "SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity
        AND relnamespace = current_schema()::regnamespace ORDER BY relname";
    let locked: Vec<_> = place.sql(locked).lines().map(str::to_owned).collect();
    assert_eq!(locked, super::statements::tables_of_organisations().into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn nothing_of_one_transaction_is_left_to_the_next_on_its_connection() {
    let Some(place) = Place::postgres() else { return };
    let store = place.open().await;
    let [alice, _] = two(&store).await;
    for kept in [true, false] {
        let mut all = Vec::new();
        for _ in 0..8 {
            let mut transaction = store.begin().await.unwrap();
            transaction.of(alice.organisation).await.unwrap();
            all.push(transaction);
        }
        for transaction in all {
            if kept {
                transaction.commit().await.unwrap();
            }
        }
        let seen = join_all((0..8).map(|_| seen(&store, "audit", None))).await;
        assert_eq!(seen, [0; 8], "on any connection");
    }
}

#[tokio::test]
async fn a_role_to_whom_all_rows_are_visible_is_refused() {
    for (to, refused) in [("BYPASSRLS", true), ("NOBYPASSRLS SUPERUSER", true), ("NOSUPERUSER", false)] {
        let Some(place) = Place::postgres() else { return };
        place.sql(&format!("ALTER ROLE CURRENT_USER {}", "LOGIN"));
        let name = place.sql("SELECT current_schema()");
        place.sql(&format!("ALTER ROLE {name} {to}"));
        match Store::open(&place.database).await {
            Err(error @ StoreError::Role { .. }) if refused => assert!(error.to_string().contains(&name), "{error}"),
            Ok(_) if !refused => {}
            other => panic!("{to}: {:?}", other.err()),
        }
    }
}

#[tokio::test]
async fn what_is_said_of_a_server_holds_no_password_and_a_far_one_shows_its_certificate() {
    use std::time::Duration;

    let Some(place) = Place::postgres() else { return };
    let with = |database: Database, password: &str, ca: bool| {
        let Database::Postgres(postgres) = database else { panic!() };
        let postgres = postgres.with_password(zeroize::Zeroizing::new(password.to_owned()));
        Database::Postgres(if ca { postgres.with_ca_file(place.ca_file()) } else { postgres })
    };
    let right = "canary-of-postgres";
    let open = async |database: Database| {
        let opened = tokio::time::timeout(Duration::from_secs(60), Store::open(&database)).await.unwrap();
        opened.map(drop).map_err(|error| format!("{error} {error:?} {database} {database:?}"))
    };
    open(with(place.far("?sslmode=verify-full"), right, true)).await.unwrap();
    open(with(place.far("?sslmode=disable"), right, false)).await.unwrap();
    for (database, expected) in [
        (with(place.far("?sslmode=verify-full"), right, false), "UnknownIssuer"),
        (with(place.far("?sslmode=verify-full"), "canary-of-another", true), "password authentication failed"),
    ] {
        let told = open(database).await.unwrap_err();
        assert!(told.contains(expected) && !told.contains("canary"), "{told}");
    }
}
