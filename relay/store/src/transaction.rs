//! What is done wholly or not at all.

use sqlx::{Any, AnyConnection};

use crate::{database::Store, error::StoreError};

/// Changes that belong together: nothing of them is there until [`Transaction::commit`], and nothing stays of one that is
/// dropped. All others wait meanwhile, so nothing else is waited for in it.
pub struct Transaction(sqlx::Transaction<'static, Any>);

impl Store {
    /// Begins one.
    ///
    /// # Errors
    /// The database gives no answer, or those before it take too long.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(Transaction(self.pool.begin().await?))
    }
}

impl Transaction {
    /// Keeps all of it. When this is done it survives a power cut.
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
