//! PostgreSQL's second lock on an organisation's rows: row-level security. A statement that forgot to say whose rows it means
//! finds none; every statement says it too, so with SQLite, which has no such thing, nothing is different.
//!
//! A table holds an organisation's rows if `organisation` is in its primary key. Of each such table a transaction sees and
//! writes the rows of the one organisation that it has named ([`Transaction::of`](crate::transaction::Transaction::of)), in a setting that ends with it. One row
//! is seen without that: the one whose keyed hash is shown ([`Transaction::shown`](crate::transaction::Transaction::shown)), as a token does not say whose it is.

use sqlx::{AnyPool, Row as _};

use crate::error::StoreError;

/// For each table of an organisation's rows that is not locked so yet. `FORCE`: the relay's role owns the tables. One relay
/// does it at a time, until its transaction ends.
const ISOLATE: &str = "DO $isolate$
DECLARE one record;
BEGIN
    PERFORM pg_advisory_xact_lock(7022024);
    FOR one IN
        SELECT c.oid, c.relname, c.relrowsecurity AND c.relforcerowsecurity AS is_locked,
            EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'organisation') AS has_policy,
            EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'shown') OR NOT
                EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'digest') AS has_shown
        FROM pg_class c
        JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organisation' AND a.attnum = ANY (i.indkey)
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
    LOOP
        IF NOT one.has_policy THEN
            EXECUTE format('CREATE POLICY organisation ON %I
                USING (organisation = current_setting(''mykube.organisation'', TRUE))', one.relname);
        END IF;
        IF NOT one.has_shown THEN
            EXECUTE format('CREATE POLICY shown ON %I FOR SELECT
                USING (digest = decode(current_setting(''mykube.shown'', TRUE), ''hex''))', one.relname);
        END IF;
        IF NOT one.is_locked THEN
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', one.relname);
        END IF;
    END LOOP;
END $isolate$";

pub(crate) async fn isolate(pool: &AnyPool) -> Result<(), StoreError> {
    sqlx::raw_sql(ISOLATE).execute(pool).await?;
    Ok(())
}

/// Refuses a role that row-level security does not hold: it would be there, and do nothing.
pub(crate) async fn check_role(pool: &AnyPool) -> Result<(), StoreError> {
    const ROLE: &str = "SELECT CAST(rolname AS TEXT) AS name, CAST(rolsuper OR rolbypassrls AS INTEGER) AS sees_all
        FROM pg_roles WHERE rolname = current_user";
    let row = sqlx::query(ROLE).fetch_one(pool).await?;
    let sees_all: i32 = row.try_get("sees_all")?;
    if sees_all == 0 { Ok(()) } else { Err(StoreError::Role { name: row.try_get("name")? }) }
}
