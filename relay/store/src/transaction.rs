//! What is done wholly or not at all.

use mykube_relay_accounts::id::OrganisationId;
use sqlx::{Any, AnyConnection, SqlStr};

use crate::{database::Store, error::StoreError};

/// SQLite: the writer from the start, so that what it reads stays so until it writes. PostgreSQL: as if the transactions came
/// one after the other; one that cannot be seen so fails, and is to be done again ([`StoreError::Changed`]).
const SQLITE: &str = "BEGIN IMMEDIATE";
const POSTGRES: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

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
        let connection = self.connection().await?;
        let begin = if self.is_postgres { POSTGRES } else { SQLITE };
        let inner = sqlx::Transaction::begin(connection, Some(SqlStr::from_static(begin))).await?;
        Ok(Transaction { inner, is_postgres: self.is_postgres, organisation: None })
    }
}

impl Transaction {
    /// Keeps all of it. When this is done it survives a power cut.
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
