//! What belongs to an organisation. Nothing of it is reached without the organisation's id.

use std::net::IpAddr;

use mykube_relay_accounts::{
    id::{AccountId, OrganisationId, SignInId},
    time::UnixTime,
};
use sqlx::Row as _;

use crate::{database::Store, error::StoreError, transaction::Transaction};

/// One organisation's rows.
pub struct Organisation<'a> {
    store: &'a Store,
    id: OrganisationId,
}

/// Who does something, by which sign-in, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The person.
    pub account: AccountId,
    /// The sign-in that was shown.
    pub sign_in: SignInId,
    /// Where the request came from.
    pub address: IpAddr,
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// In their order, from 1 on, with no gap; those of more than a [year](crate::AUDIT) ago are forgotten.
    pub number: i64,
    /// When.
    pub at: UnixTime,
    /// Whose act it was: `user_...`.
    pub account: String,
    /// From where.
    pub address: String,
    /// What was done, as `sign_in.begin`.
    pub action: String,
    /// More about it, for people.
    pub detail: String,
}

impl Store {
    /// What belongs to this organisation.
    #[must_use]
    pub fn organisation(&self, id: OrganisationId) -> Organisation<'_> {
        Organisation { store: self, id }
    }
}

impl Organisation<'_> {
    /// The newest lines of its audit log, the newest first.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn audit(&self, most: u32) -> Result<Vec<AuditLine>, StoreError> {
        const NEWEST: &str = "SELECT number, at, account, address, action, detail FROM audit
            WHERE organisation = $1 ORDER BY number DESC LIMIT $2";
        let mut transaction = self.store.begin().await?;
        let newest = sqlx::query(NEWEST).bind(self.id.to_string()).bind(i64::from(most));
        let rows = newest.fetch_all(transaction.of(self.id).await?).await?;
        let line = |row: &sqlx::any::AnyRow| {
            Ok(AuditLine {
                number: row.try_get("number")?,
                at: UnixTime::from_millis(row.try_get("at")?),
                account: row.try_get("account")?,
                address: row.try_get("address")?,
                action: row.try_get("action")?,
                detail: row.try_get("detail")?,
            })
        };
        rows.iter().map(line).collect()
    }
}

impl Transaction {
    /// Writes a line of the organisation's audit log, beside what it tells: the one is never there without the other.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn record(
        &mut self,
        organisation: OrganisationId,
        actor: Actor,
        (action, detail): (&'static str, &str),
        now: UnixTime,
    ) -> Result<(), StoreError> {
        const WRITE: &str = "INSERT INTO audit (organisation, number, at, account, sid, address, action, detail)
        SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3, $4, $5, $6, $7 FROM audit WHERE organisation = $1";
        let write =
            sqlx::query(WRITE).bind(organisation.to_string()).bind(now.millis()).bind(actor.account.to_string());
        let write = write.bind(actor.sign_in.as_bytes().to_vec()).bind(actor.address.to_string());
        write.bind(action).bind(detail.to_owned()).execute(self.of(organisation).await?).await?;
        Ok(())
    }
}
