//! Who may come in, and who operates the relay.

use mykube_relay_accounts::{email::Email, id::AccountId, sign_up::Invitation, time::UnixTime};
use sqlx::{Row as _, any::AnyRow};

use crate::{error::StoreError, transaction::Transaction};

impl Transaction {
    /// Keeps a new one. An older one of the same address is over with it.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn invite(&mut self, invitation: &Invitation) -> Result<(), StoreError> {
        const INVITE: &str = "INSERT INTO invitations (email, operator, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (email) DO UPDATE SET operator = excluded.operator, created_at = excluded.created_at,
                taken_at = NULL, taken_by = NULL";
        let invite = sqlx::query(INVITE).bind(invitation.email.to_string()).bind(i64::from(invitation.operator));
        invite.bind(invitation.created_at.millis()).execute(self.connection()).await?;
        Ok(())
    }

    /// That of an address.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn invitation(&mut self, email: &Email) -> Result<Option<Invitation>, StoreError> {
        const FIND: &str = "SELECT email, operator, created_at, taken_at FROM invitations WHERE email = $1";
        let row = sqlx::query(FIND).bind(email.to_string()).fetch_optional(self.connection()).await?;
        row.as_ref().map(invitation).transpose()
    }

    /// Somebody takes one, who operates the relay from then on if it says so.
    ///
    /// # Errors
    /// The database gives no answer, or it was taken since it was read ([`StoreError::Changed`]).
    pub async fn take_invitation(
        &mut self,
        invitation: &Invitation,
        account: AccountId,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        const TAKE: &str = "UPDATE invitations SET taken_at = $1, taken_by = $2
            WHERE email = $3 AND created_at = $4 AND taken_at IS NULL";
        const OPERATE: &str = "INSERT INTO operators (account, since) VALUES ($1, $2) ON CONFLICT (account) DO NOTHING";
        let take = sqlx::query(TAKE).bind(now.millis()).bind(account.to_string());
        let take = take.bind(invitation.email.to_string()).bind(invitation.created_at.millis());
        if take.execute(self.connection()).await?.rows_affected() != 1 {
            return Err(StoreError::Changed);
        }
        if invitation.operator {
            let operate = sqlx::query(OPERATE).bind(account.to_string()).bind(now.millis());
            operate.execute(self.connection()).await?;
        }
        Ok(())
    }

    /// Whether somebody operates the relay.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn is_operator(&mut self, account: AccountId) -> Result<bool, StoreError> {
        const FIND: &str = "SELECT since FROM operators WHERE account = $1";
        Ok(sqlx::query(FIND).bind(account.to_string()).fetch_optional(self.connection()).await?.is_some())
    }
}

fn invitation(row: &AnyRow) -> Result<Invitation, StoreError> {
    let email: String = row.try_get("email")?;
    Ok(Invitation {
        email: email.parse().map_err(|_| StoreError::Damaged("invitations.email"))?,
        operator: row.try_get::<i64, _>("operator")? != 0,
        created_at: UnixTime::from_millis(row.try_get("created_at")?),
        taken_at: row.try_get::<Option<i64>, _>("taken_at")?.map(UnixTime::from_millis),
    })
}
