//! What belongs to an organisation. Nothing of it is reached without the organisation's id.

use std::net::IpAddr;

use mykube_relay_accounts::{
    id::{AccountId, AgentId, OrganisationId, SignInId},
    name::Name,
    time::UnixTime,
};
use sqlx::Row as _;

use crate::{database::Store, error::StoreError, transaction::Transaction};

/// One organisation's rows.
pub struct Organisation<'a> {
    pub(crate) store: &'a Store,
    pub(crate) id: OrganisationId,
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

/// An agent that does something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentActor {
    /// Which.
    pub id: AgentId,
    /// What it is called.
    pub name: Name,
    /// Where it connected from.
    pub address: IpAddr,
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// In their order, from 1 on, with no gap; those of more than a [year](crate::AUDIT) ago are forgotten.
    pub number: i64,
    /// When.
    pub at: UnixTime,
    /// Whose act it was: `user_...`, or `agent:` and its name.
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
        rows.iter().map(line).collect()
    }
}

fn line(row: &sqlx::any::AnyRow) -> Result<AuditLine, StoreError> {
    Ok(AuditLine {
        number: row.try_get("number")?,
        at: UnixTime::from_millis(row.try_get("at")?),
        account: row.try_get("account")?,
        address: row.try_get("address")?,
        action: row.try_get("action")?,
        detail: row.try_get("detail")?,
    })
}

impl Transaction {
    /// The lines of an organisation's audit log that come after this number, in their order.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn audit_after(
        &mut self,
        organisation: OrganisationId,
        number: i64,
        most: u32,
    ) -> Result<Vec<AuditLine>, StoreError> {
        const AFTER: &str = "SELECT number, at, account, address, action, detail FROM audit
            WHERE organisation = $1 AND number > $2 ORDER BY number LIMIT $3";
        let after = sqlx::query(AFTER).bind(organisation.to_string()).bind(number).bind(i64::from(most));
        after.fetch_all(self.of(organisation).await?).await?.iter().map(line).collect()
    }

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
        let by = (actor.account.to_string(), actor.sign_in.as_bytes().to_vec(), actor.address);
        self.write(organisation, by, (action, detail), now).await
    }

    /// The same for what an agent does.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn record_agent(
        &mut self,
        organisation: OrganisationId,
        actor: &AgentActor,
        (action, detail): (&'static str, &str),
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let by = (format!("agent:{}", actor.name), actor.id.as_bytes().to_vec(), actor.address);
        self.write(organisation, by, (action, detail), now).await
    }

    async fn write(
        &mut self,
        organisation: OrganisationId,
        (who, by, address): (String, Vec<u8>, IpAddr),
        (action, detail): (&'static str, &str),
        now: UnixTime,
    ) -> Result<(), StoreError> {
        const WRITE: &str = "INSERT INTO audit (organisation, number, at, account, sid, address, action, detail)
        SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3, $4, $5, $6, $7 FROM audit WHERE organisation = $1";
        let write = sqlx::query(WRITE).bind(organisation.to_string()).bind(now.millis()).bind(who);
        let write = write.bind(by).bind(address.to_string());
        write.bind(action).bind(detail.to_owned()).execute(self.of(organisation).await?).await?;
        Ok(())
    }
}
