//! What is done wholly or not at all.

use data_encoding::HEXLOWER;
use mykube_relay_accounts::{id::OrganisationId, keyed_hash::Digest};
use sqlx::{Any, AnyConnection, SqlStr};

use crate::{database::Store, error::StoreError};

/// SQLite: the writer from the start, so that what it reads stays so until it writes; each says anew whether the disk is waited
/// for, as a connection goes from one to the other. SQLite's manual: in WAL mode, "a transaction committed with synchronous=NORMAL
/// might roll back following a power loss", and nothing else is lost. PostgreSQL: as if the transactions came
/// one after the other; one that cannot be seen so fails, and is to be done again ([`StoreError::Changed`]).
const SQLITE: &str = "PRAGMA synchronous = FULL; BEGIN IMMEDIATE";
const SQLITE_PASSING: &str = "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE";
const POSTGRES: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";
const POSTGRES_PASSING: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL synchronous_commit = off";

/// Changes that belong together: nothing of them is there until [`Transaction::commit`], and nothing stays of one that is
/// dropped. What it read is still so when it is kept: on SQLite all others wait meanwhile, so nothing else is waited for in
/// it; on PostgreSQL it may have to be done again, whole.
pub struct Transaction {
    inner: sqlx::Transaction<'static, Any>,
    pub(crate) is_postgres: bool,
    /// Whose rows it sees, where the database knows.
    pub(crate) organisation: Option<OrganisationId>,
}

impl Store {
    /// Begins one.
    ///
    /// # Errors
    /// The database gives no answer, or those before it take too long. At once, where that is known.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        self.begin_by(if self.is_postgres { POSTGRES } else { SQLITE }).await
    }

    /// The same, for what lives for minutes and is asked for by anybody: no disk is waited for. What is kept survives the end
    /// of this program, however it ends, but for a power cut.
    ///
    /// # Errors
    /// The database gives no answer, or those before it take too long. At once, where that is known.
    pub async fn begin_passing(&self) -> Result<Transaction, StoreError> {
        self.begin_by(if self.is_postgres { POSTGRES_PASSING } else { SQLITE_PASSING }).await
    }

    async fn begin_by(&self, begin: &'static str) -> Result<Transaction, StoreError> {
        let connection = self.connection().await?;
        let inner = sqlx::Transaction::begin(connection, Some(SqlStr::from_static(begin))).await?;
        Ok(Transaction { inner, is_postgres: self.is_postgres, organisation: None })
    }
}

impl Transaction {
    /// Keeps all of it. When this is done it survives a power cut, but for that of [`Store::begin_passing`].
    ///
    /// # Errors
    /// The database gives no answer: then it may be kept or not. Or it has to be done again ([`StoreError::Changed`]): then
    /// nothing is kept.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.inner.commit().await?)
    }

    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}

impl Transaction {
    /// The connection, for rows of this organisation.
    pub(crate) async fn of(&mut self, organisation: OrganisationId) -> Result<&mut AnyConnection, StoreError> {
        const NAME: &str = "SELECT set_config('mykube.organisation', $1, TRUE)";
        if self.is_postgres && self.organisation != Some(organisation) {
            sqlx::query(NAME).bind(organisation.to_string()).execute(self.connection()).await?;
            self.organisation = Some(organisation);
        }
        Ok(self.connection())
    }

    /// The connection, to find the row of a token that is shown.
    pub(crate) async fn shown(&mut self, digest: Digest) -> Result<&mut AnyConnection, StoreError> {
        const SHOW: &str = "SELECT set_config('mykube.shown', $1, TRUE)";
        if self.is_postgres {
            let hex = HEXLOWER.encode(&digest.to_bytes());
            sqlx::query(SHOW).bind(hex).execute(self.connection()).await?;
        }
        Ok(self.connection())
    }
}
