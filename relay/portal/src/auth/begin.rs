//! A sign-in begins: whoever it is has proved it, and nothing is kept yet. Every way in comes through here, so that who may have
//! an account is judged in one place.

use std::net::IpAddr;

use http::StatusCode;
use mykube_relay_accounts::{
    id::SignInId,
    identity::Person,
    jwt::Subject,
    sign_in::Method,
    sign_up::{Admitted, Invitation, NotAdmitted},
    time::UnixTime,
};
use mykube_relay_store::{Account, Actor, Identity, SignIn, StoreError, Transaction};
use tracing::info;

use crate::{failure::Failure, shared::Shared};

/// A sign-in, in a transaction that waits to be kept.
pub(crate) struct Begun {
    pub(crate) transaction: Transaction,
    pub(crate) account: Account,
    pub(crate) subject: Subject,
    pub(crate) now: UnixTime,
}

/// Why none begins.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    /// They have no account, and get none here.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<BeginError> for Failure {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::NotAdmitted(error) => Self::json(StatusCode::FORBIDDEN, error.to_string()),
            BeginError::Store(error) => error.into(),
        }
    }
}

/// Of whom a provider, a code or the dev secret says they are. `by`: what proved it, and for what, for the audit log.
pub(crate) async fn begin(
    portal: &Shared,
    person: &Person,
    address: IpAddr,
    method: Method,
    by: &str,
) -> Result<Begun, BeginError> {
    let now = portal.now();
    let mut transaction = portal.store.begin().await?;
    let (admitted, invitation) = match judge(portal, &mut transaction, person, method, now).await {
        Err(BeginError::NotAdmitted(error)) => {
            info!(%address, "somebody without an account was not let in");
            return Err(error.into());
        }
        judged => judged?,
    };
    let account = transaction.account_of(&Identity::from(person), now).await?;
    let mut begun = begin_as(portal, transaction, account, address, (method, now), by).await?;
    if let (Admitted::Invited { operator }, Some(invitation)) = (admitted, invitation) {
        let Begun { transaction, account, subject, .. } = &mut begun;
        transaction.take_invitation(&invitation, account.id, now).await?;
        let actor = Actor { account: account.id, sign_in: subject.sign_in, address };
        let what = ("invitation.take", if operator { "operator" } else { "" });
        transaction.record(account.organisation, actor, what, now).await?;
        info!(account = %account.id, operator, "an invitation was taken");
    }
    Ok(begun)
}

/// Whether this person may sign in, and by which invitation. Writes nothing.
pub(crate) async fn judge(
    portal: &Shared,
    transaction: &mut Transaction,
    person: &Person,
    method: Method,
    now: UnixTime,
) -> Result<(Admitted, Option<Invitation>), BeginError> {
    let is_known = transaction.is_known(&Identity::from(person)).await?;
    let invitation = match person.proved_email() {
        Some(email) => transaction.invitation(email).await?,
        None => None,
    };
    // Dev mode's secret lets its people in.
    let is_known = is_known || method == Method::Dev;
    let admitted = portal.settings.sign_up.judge(person, is_known, invitation.as_ref(), now)?;
    Ok((admitted, invitation))
}

/// The same for somebody whose account is known, with how and when they proved who they are.
pub(crate) async fn begin_as(
    portal: &Shared,
    mut transaction: Transaction,
    account: Account,
    address: IpAddr,
    (method, auth_time): (Method, UnixTime),
    by: &str,
) -> Result<Begun, StoreError> {
    let now = portal.now();
    let id = SignInId::random(&mut rand::rng());
    let sign_in = SignIn { id, account: account.id, method, signed_in_at: now };
    transaction.begin_sign_in(sign_in, address).await?;
    if auth_time != now {
        transaction.set_auth_time(id, auth_time).await?;
    }
    let actor = Actor { account: account.id, sign_in: id, address };
    transaction.record(account.organisation, actor, ("sign_in.begin", by), now).await?;
    let subject = account.subject(id, auth_time);
    Ok(Begun { transaction, account, subject, now })
}
