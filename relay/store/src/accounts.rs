//! People, each with an organisation of their own from their first sign-in on.

use mykube_relay_accounts::{
    id::{AccountId, OrganisationId, SignInId},
    identity::Person,
    jwt::Subject,
    time::UnixTime,
};
use sqlx::{Row as _, any::AnyRow};

use crate::{database::Store, error::StoreError, transaction::Transaction};

/// Who somebody is, by the word of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The provider.
    pub issuer: String,
    /// Whom it means: of one issuer, never two people's.
    pub subject: String,
    /// How published calls show the person.
    pub user_id: String,
    /// An address, for people to read.
    pub email: String,
}

impl From<&Person> for Identity {
    fn from(person: &Person) -> Self {
        let Person { identity, user_id, email, .. } = person;
        Self {
            issuer: identity.issuer.clone(),
            subject: identity.subject.clone(),
            user_id: user_id.clone(),
            email: email.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

/// A person at this relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// For ever.
    pub id: AccountId,
    /// As the provider says it now.
    pub identity: Identity,
    /// The account's own.
    pub organisation: OrganisationId,
}

impl Account {
    /// Whose a token of this sign-in is, in which the person proved who they are at that time.
    #[must_use]
    pub fn subject(&self, sign_in: SignInId, auth_time: UnixTime) -> Subject {
        let Identity { email, user_id, .. } = self.identity.clone();
        Subject { account: self.id, email, user_id, sign_in, auth_time }
    }
}

const BY_ID: &str = "SELECT id, issuer, subject, user_id, email, organisation FROM accounts WHERE id = $1";
const BY_IDENTITY: &str = "SELECT id, issuer, subject, user_id, email, organisation FROM accounts
    WHERE issuer = $1 AND subject = $2";

impl Store {
    /// An account.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn account(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query(BY_ID).bind(id.to_string()).fetch_optional(&mut *self.connection().await?).await?;
        row.as_ref().map(account).transpose()
    }
}

impl Transaction {
    /// An account.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn account(&mut self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query(BY_ID).bind(id.to_string()).fetch_optional(self.connection()).await?;
        row.as_ref().map(account).transpose()
    }

    /// Whether this identity has an account.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn is_known(&mut self, identity: &Identity) -> Result<bool, StoreError> {
        let found = sqlx::query(BY_IDENTITY).bind(identity.issuer.clone()).bind(identity.subject.clone());
        Ok(found.fetch_optional(self.connection()).await?.is_some())
    }

    /// The account of this identity, as it is shown now: made, with its organisation, when it comes for the first time.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn account_of(&mut self, identity: &Identity, now: UnixTime) -> Result<Account, StoreError> {
        const MAKE_ORGANISATION: &str = "INSERT INTO organisations (id, name, created_at) VALUES ($1, NULL, $2)";
        const MAKE: &str = "INSERT INTO accounts (id, issuer, subject, user_id, email, organisation, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)";
        const JOIN: &str = "INSERT INTO members (organisation, account, role, since) VALUES ($1, $2, 'owner', $3)";
        const SHOW: &str = "UPDATE accounts SET user_id = $1, email = $2 WHERE id = $3";
        let Identity { issuer, subject, user_id, email } = identity;
        let found = sqlx::query(BY_IDENTITY).bind(issuer.as_str()).bind(subject.as_str());
        if let Some(row) = found.fetch_optional(self.connection()).await? {
            let known = account(&row)?;
            // A token may not say the address, which has not gone for that.
            let email = if email.is_empty() { known.identity.email.clone() } else { email.clone() };
            let account = Account { identity: Identity { email: email.clone(), ..identity.clone() }, ..known };
            let show = sqlx::query(SHOW).bind(user_id.as_str()).bind(email).bind(account.id.to_string());
            show.execute(self.connection()).await?;
            return Ok(account);
        }
        let (id, organisation) = {
            let mut rng = rand::rng();
            (AccountId::random(&mut rng), OrganisationId::random(&mut rng))
        };
        let made = sqlx::query(MAKE_ORGANISATION).bind(organisation.to_string()).bind(now.millis());
        made.execute(self.connection()).await?;
        let made = sqlx::query(MAKE).bind(id.to_string()).bind(issuer.as_str()).bind(subject.as_str());
        let made = made.bind(user_id.as_str()).bind(email.as_str()).bind(organisation.to_string()).bind(now.millis());
        made.execute(self.connection()).await?;
        let joined = sqlx::query(JOIN).bind(organisation.to_string()).bind(id.to_string()).bind(now.millis());
        joined.execute(self.of(organisation).await?).await?;
        Ok(Account { id, identity: identity.clone(), organisation })
    }
}

fn account(row: &AnyRow) -> Result<Account, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    Ok(Account {
        id: text("id")?.parse().map_err(|_| StoreError::Damaged("accounts.id"))?,
        identity: Identity {
            issuer: text("issuer")?,
            subject: text("subject")?,
            user_id: text("user_id")?,
            email: text("email")?,
        },
        organisation: text("organisation")?.parse().map_err(|_| StoreError::Damaged("accounts.organisation"))?,
    })
}
