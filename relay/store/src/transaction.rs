//! What is done wholly or not at all.

use sqlx::{Any, AnyConnection};

use crate::{database::Store, error::StoreError};

/// Changes that belong together: nothing of them is there until [`Transaction::commit`], and nothing stays of one that is
/// dropped. All others wait meanwhile, so nothing else is waited for in it.
pub struct Transaction(sqlx::Transaction<'static, Any>);

/// Each says it anew: a connection goes from one to the other. SQLite's manual: in WAL mode, "NORMAL does lose durability. A
/// transaction committed in WAL mode with synchronous=NORMAL might roll back following a power loss", and nothing else is lost.
const LASTING: &str = "PRAGMA synchronous = FULL; BEGIN";
const PASSING: &str = "PRAGMA synchronous = NORMAL; BEGIN";

impl Store {
    /// Begins one.
    ///
    /// # Errors
    /// The database gives no answer, or those before it take too long.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(Transaction(self.pool.begin_with(LASTING).await?))
    }

    /// The same, for what lives for minutes and is asked for by anybody: no disk is waited for. What is kept survives the end
    /// of this program, however it ends, but for a power cut.
    ///
    /// # Errors
    /// The database gives no answer, or those before it take too long.
    pub async fn begin_passing(&self) -> Result<Transaction, StoreError> {
        Ok(Transaction(self.pool.begin_with(PASSING).await?))
    }
}

impl Transaction {
    /// Keeps all of it. When this is done it survives a power cut, but for that of [`Store::begin_passing`].
    ///
    /// # Errors
    /// The database gives no answer: then it may be kept or not.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.0.commit().await?)
    }

    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.0
    }
}
